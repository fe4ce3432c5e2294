'use strict';
// What is heard from the agent, and everything that is words. The pictures are in the other half.

const HEALTH = {
  cut: 'cut off', poor: 'needs attention', unknown: 'not measured', good: 'reached',
};
const MANY = { ...HEALTH, poor: 'need attention' };
const ORDER = Object.keys(HEALTH);
const PATHS = { kernel: 'kernel VXLAN', direct: 'direct route', userspace: 'userspace VXLAN' };
const VERDICTS = {
  'ok': 'It answers in every way.',
  'unknown': 'Its agent answers no probes, or it is too early to say.',
  'port-eaten': 'The hosts reach each other, but what is sent to the tunnel’s port is lost between them.',
  'overlay-down': 'The hosts reach each other, but not through the fabric: one of the two is not as it should be yet.',
  'underlay-down': 'The fabric carries; the probes’ own port is blocked between the hosts.',
  'one-way': 'What it sends arrives here. What this host sends to it does not.',
  'agent-down': 'Its agent does not answer; its kernel does, so packets to its pods pass.',
  'peer-down': 'Nothing comes from it.',
};
const KINDS = { trouble: 'Trouble', repair: 'Repaired', better: 'Better', news: 'News' };
const STALE_MS = 4000, SILENT_MS = 12000, OLD_MS = 15000, ROWS = 50, EVENTS = 200;

const state = { host: null, peers: new Map(), list: [], events: [], chosen: null, picked: false, age: 0, stuck: null };
let heard = performance.now(), source = null, waiting = false;

// Small tools

const $ = (id) => document.getElementById(id);
const SVG = 'http://www.w3.org/2000/svg';

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function draw(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function set(node, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null) node.removeAttribute(key);
    else if (node.getAttribute(key) !== String(value)) node.setAttribute(key, value);
  }
}

function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Keeps one child for each item, in order: what stays the same stays the same element, so that focus and readers do.
function keep(parent, items, key, make, paint) {
  const had = parent.kept ?? new Map(), kept = new Map();
  let at = parent.firstChild;
  for (const item of items) {
    const id = key(item), node = had.get(id) ?? make(item);
    had.delete(id);
    kept.set(id, node);
    if (paint) paint(node, item);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
  }
  for (const node of had.values()) node.remove();
  parent.kept = kept;
}

const plural = (count, one, many) => `${count} ${count === 1 ? one : many}`;
const percent = (share) => (share > 0 && share < 0.01 ? '<1 %' : `${Math.round(share * 100)} %`);

function ms(us) {
  const value = us / 1000;
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

function span(seconds) {
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  const first = units.findIndex(([, size]) => seconds >= size);
  if (first < 0) return '0 s';
  const parts = units.slice(first, first + 2).map(([name, size], at) => {
    const value = Math.floor(at === 0 ? seconds / size : (seconds % units[first][1]) / size);
    return value > 0 || at === 0 ? `${value} ${name}` : '';
  });
  return parts.filter(Boolean).join(' ');
}

// How long a peer is as it is, and the same in one unit.
const lasting = (peer) => (peer.since === undefined ? undefined : Math.max(0, Math.floor(state.now / 1000) - peer.since));
const brieflyLasting = (peer) => (peer.since === undefined ? '—' : span(lasting(peer)).split(' ').slice(0, 2).join(' '));

function clock(unixMs) {
  const at = new Date(unixMs), day = at.toDateString() === new Date().toDateString();
  const time = at.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
  return day ? time : `${at.toLocaleDateString([], { month: 'short', day: 'numeric' })} ${time.slice(0, 5)}`;
}

// What peers are called, and how they are

function subnet(key) {
  const four = /^(\d+\.\d+\.\d+\.\d+)-(\d+)/.exec(key);
  return four ? `${four[1]}/${four[2]}` : key;
}

const number = (address) => address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
const way = (peer, name) => peer.ways.find((one) => one.way === name && one.p50 !== undefined)
  ?? peer.ways.find((one) => one.way === name);
const best = (peer) => peer.ways.find((one) => one.p50 !== undefined);
const lossy = (peer) => Math.max(0, ...peer.ways.map((one) => one.loss ?? 0));

// What becomes of packets on one way to a peer, in each direction: a health and a word.
function legs(peer, one) {
  const none = { health: 'unknown', word: '?', long: 'not known' };
  if (!one || (one.up === undefined && one.loss === undefined)) return { there: none, back: none };
  const cut = { health: 'cut', word: '✕ cut', long: 'nothing arrives' };
  const fine = { health: 'good', word: '✓', long: 'arrives' };
  const some = (share) => (share === undefined ? none
    : share === 0 ? fine : { health: 'poor', word: `▲ ${percent(share)}`, long: `${percent(share)} of the last probes lost` });
  if (one.up !== false) return { there: some(one.there), back: some(one.back) };
  if (peer.verdict === 'one-way') return { there: cut, back: fine };
  // Whether it gets there is told by the other host, if that is heard in some way at all.
  if (one.there === undefined || peer.ways.every((other) => other.up === false)) return { there: none, back: cut };
  return one.there >= one.loss / 2 ? { there: cut, back: none } : { there: fine, back: cut };
}

function brief(peer) {
  const first = best(peer), lost = lossy(peer), parts = [HEALTH[peer.health]];
  if (peer.verdict && peer.verdict !== 'ok') parts.push(peer.verdict);
  if (peer.held) parts.push('gone from the store, held');
  if (first && peer.health !== 'cut') parts.push(`${ms(first.p50)} ms`);
  if (lost > 0 && peer.health !== 'cut') parts.push(`${percent(lost)} lost`);
  if (peer.path) parts.push(PATHS[peer.path] ?? peer.path);
  return parts.join(', ');
}

const badness = (a, b) => ORDER.indexOf(a.health) - ORDER.indexOf(b.health) || lossy(b) - lossy(a);

// What the agent says

function connect() {
  if (source) source.close();
  source = new EventSource('/v1/events');
  source.onmessage = (message) => take(JSON.parse(message.data));
  // One that was refused does not try again by itself.
  source.onerror = () => { if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000); };
}

function take(frame) {
  heard = performance.now();
  const fresh = frame.events ?? [];
  if (frame.whole) {
    state.peers.clear();
    state.events = [];
    state.fabric.rows.clear();
  } else {
    announce(fresh);
  }
  for (const peer of frame.peers ?? []) state.peers.set(peer.key, named(peer));
  for (const key of frame.gone ?? []) state.peers.delete(key);
  if (frame.fabric) hear(frame.fabric);
  if (frame.host) state.host = frame.host;
  state.events = [...fresh.reverse(), ...state.events].slice(0, EVENTS);
  [state.age, state.stuck, state.now] = [frame.age_ms, frame.stuck ?? null, frame.at_ms];
  state.list = [...state.peers.values()].sort((a, b) => order(a.key) - order(b.key) || (a.key < b.key ? -1 : 1));
  state.worst = [...state.list].sort(badness);
  choose();
  if (!waiting) requestAnimationFrame(show);
  waiting = true;
}

// Gives names to what comes without.
function named(peer) {
  const share = (thousandths) => (thousandths === null ? undefined : thousandths / 1000);
  const ways = (peer.ways ?? []).map(([way, family, up, p50, p99, lost]) => {
    const [loss, there, back] = lost === null ? [] : lost.length === 0 ? [0, 0, 0] : lost.map(share);
    return { way, family, up: up ?? undefined, p50: p50 ?? undefined, p99: p99 ?? undefined, loss, there, back };
  });
  return { mtu_wanted: peer.mtu, ...peer, ways };
}

const order = (key) => { const four = /^(\d+\.\d+\.\d+\.\d+)-/.exec(key); return four ? number(four[1]) : Infinity; };

// Whom the details are about: whoever was picked, else whoever is worst off.
function choose(key) {
  if (key !== undefined) [state.chosen, state.picked] = [key, true];
  if (!state.peers.has(state.chosen)) state.picked = false;
  const worst = state.worst[0];
  if (!state.picked) state.chosen = worst && (worst.health === 'good' ? state.list[0] : worst).key;
}

function pick(key) {
  choose(key);
  show();
}

function announce(events) {
  const told = events.filter((event) => event.kind !== 'news').map((event) => `${KINDS[event.kind]}: ${event.text}.`);
  const more = told.length > 3 ? ` And ${told.length - 3} more.` : '';
  if (told.length > 0) say($('announce'), told.slice(0, 3).join(' ') + more);
}

function beat() {
  const silent = performance.now() - heard, body = document.body;
  const live = !state.host ? 'waiting' : silent > STALE_MS || state.age > OLD_MS ? 'stale' : 'live';
  set(body, { 'data-live': live });
  const seconds = Math.round(silent / 1000);
  say($('live-text'), { waiting: 'waiting for the agent', live: 'live', stale: 'stale' }[live]);
  $('stale').hidden = live !== 'stale';
  if (live === 'stale') {
    const why = silent > STALE_MS ? `Nothing heard for ${seconds} s: what you see is how it was then. Trying again by itself.`
      : `The agent answers, but its own view is ${Math.round(state.age / 1000)} s old.`;
    say($('stale'), why);
  }
  if (silent > SILENT_MS) {
    heard = Math.max(heard, performance.now() - STALE_MS - 1000);
    connect();
  }
}

// Words

function headline(counts) {
  const { host, list } = state, all = list.length, some = (count) => `${count} of ${plural(all, 'other host', 'other hosts')}`;
  if (state.stuck) return ['cut', 'The agent makes no progress', state.stuck];
  const worst = state.worst[0], because = host.because.join('; ');
  const cause = worst ? `${subnet(worst.key)}: ${worst.cause || VERDICTS[worst.verdict] || ''}` : '';
  if (counts.cut) return ['cut', `${some(counts.cut)} ${counts.cut === 1 ? 'is' : 'are'} cut off`, cause];
  if (host.state === 'failed') return ['cut', 'This host is not ready', because || 'Its kernel is not as wanted yet.'];
  if (all === 0) return ['unknown', 'This host is alone', 'No other host has a lease in this fabric.'];
  if (counts.poor) {
    const why = worst.held ? `${subnet(worst.key)} is gone from the store, and its removal is held back.`
      : worst.cause ? cause : worst.mtu < worst.mtu_wanted
        ? `${subnet(worst.key)} takes packets of ${worst.mtu} bytes only, where its devices take ${worst.mtu_wanted}.`
        : `${subnet(worst.key)}: ${percent(lossy(worst))} of the last probes were lost.`;
    return ['poor', `${some(counts.poor)} ${counts.poor === 1 ? 'needs' : 'need'} attention`, why];
  }
  const apart = state.pairs.filter((one) => one.health === 'cut' && one.from && one.to);
  if (apart.length) return ['poor', `This host reaches all, and others do not: ${plural(apart.length, 'direction is', 'directions are')} cut`, reason(apart[0])];
  const faults = host.faults.length + host.more_faults;
  if (faults) return ['poor', `All hosts that answer are well, and ${plural(faults, 'thing is', 'things are')} wrong here`, host.faults[0].cause];
  if (counts.unknown === all) return ['unknown', `${plural(all, 'other host', 'other hosts')}, not measured yet`, 'It takes some seconds, and agents that answer probes.'];
  if (counts.unknown) return ['unknown', `${counts.good} of ${all} other hosts are reached`, `${counts.unknown} not measured: their agents answer no probes, or it is too early to say.`];
  return ['good', `All ${all + 1} hosts are well`, 'Every other host is reached, in both directions, without loss.'];
}

function show() {
  waiting = false;
  const { host, list } = state;
  if (!host) return;
  state.pairs = troubled();
  const counts = { cut: 0, poor: 0, unknown: 0, good: 0 };
  for (const peer of list) counts[peer.health] += 1;
  const [tone, title, reason] = headline(counts);
  say($('headline'), title);
  say($('reason'), reason);
  set($('summary'), { class: tone });
  document.title = `${tone === 'good' ? '' : `${title} · `}Twill ${host.subnets[0] ?? ''}`;
  keep($('counts'), ORDER, (name) => name,
    (name) => el('li', { class: name }, glyph(name), el('span')),
    (node, name) => {
      say(node.lastChild, `${counts[name]} ${(counts[name] === 1 ? HEALTH : MANY)[name]}`);
      set(node, { 'data-none': counts[name] ? null : '' });
    });
  facts($('who'), [['this host', host.underlay?.public.join(', ') ?? 'no address yet'], ['subnet', host.subnets.join(', ') || 'none yet'],
    ['network', host.network ? `${host.network.backend}, MTU ${host.network.mtu}` : 'not known yet'], ['store', host.connected ? 'answers' : 'away']]);
  say($('about'), `twill ${host.build}, process ${host.pid}, up ${span(state.now / 1000 - host.since_s)}; node ${host.node}; ${host.store}`);
  faults();
  picture();
  detail();
  matrix();
  heat();
  pool();
  happened();
  table();
  beat();
  if (performance.getEntriesByName('drawn').length === 0) performance.mark('drawn');
}

function facts(list, pairs) {
  keep(list, pairs, ([name]) => name, ([name]) => el('div', {}, el('dt', {}, name), el('dd')), (node, [, value]) => say(node.lastChild, value));
}

function faults() {
  const { faults: all, more_faults: more } = state.host;
  $('faults').hidden = all.length === 0;
  const items = [...all, ...(more ? [{ code: `and ${more} more`, subject: '', cause: 'see twill status', next: '' }] : [])];
  keep($('fault-list'), items, (fault) => `${fault.code} ${fault.subject}`,
    () => el('li', {}, el('code'), el('span'), el('div', { class: 'next' })),
    (node, fault) => {
      say(node.children[0], fault.code);
      say(node.children[1], ` ${fault.subject}: ${fault.cause}`);
      say(node.children[2], fault.next ? `Next: ${fault.next}` : '');
    });
}

function detail() {
  const peer = state.peers.get(state.chosen), box = $('detail');
  if (!peer) return box.replaceChildren(el('p', {}, 'There is no other host to look at.'));
  const own = state.host.subnets[0]?.split('/')[0], to = subnet(peer.key).split('/')[0];
  const word = peer.verdict ? `${HEALTH[peer.health]}: ${peer.verdict}` : HEALTH[peer.health];
  const pairs = [['address', peer.at.join(', ')], ['path', PATHS[peer.path] ?? (peer.path || peer.backend || 'none')],
    ['largest packet', peer.mtu ? `${peer.mtu} bytes${peer.mtu < peer.mtu_wanted ? `, of ${peer.mtu_wanted}` : ''}` : 'not measured']];
  for (const one of peer.ways) {
    const { there, back } = legs(peer, one), time = one.p50 === undefined || one.up === false ? '' : `; ${ms(one.p50)} ms, 99 of 100 within ${ms(one.p99 ?? one.p50)}`;
    pairs.push([`${one.way} ${one.family}`, `there ${there.long}, back ${back.long}${time}`]);
  }
  pairs.push(['node', peer.node ?? 'flanneld, or an agent without an id']);
  const parts = [el('h3', { class: peer.health }, glyph(peer.health), subnet(peer.key)),
    el('p', { class: `verdict ${peer.health}` }, word, el('span', { id: 'for' })),
    el('p', { class: `cause ${peer.health}` }, peer.cause || VERDICTS[peer.verdict] || 'Nothing was measured of it yet.'),
    el('dl', {}, ...pairs.flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value)]))];
  if (own && /^[\d.]+$/.test(own) && /^[\d.]+$/.test(to)) {
    const first = (net) => net.replace(/\d+$/, (last) => Number(last) + 1);
    parts.push(el('p', {}, 'Hop by hop, on this host:'), el('code', { class: 'run' }, `twill trace ${first(own)} ${first(to)}`));
  }
  if (box.told !== JSON.stringify(peer)) box.replaceChildren(...parts);
  box.told = JSON.stringify(peer);
  say($('for'), peer.since === undefined ? '' : ` for ${span(lasting(peer))}`);
  set($('for'), { title: peer.since === undefined ? null : `since ${clock(peer.since * 1000)}` });
}
