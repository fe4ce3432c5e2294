// This host’s row, way by way, the pool, what happened, and the table of all hosts.

const TABLE = 32;
const STEPS = [200, 500, 1000, 2000, 5000, 20000];
const MEASURES = {
  overlay: 'round trip through the fabric', underlay: 'round trip between hosts', there: 'lost on the way there', back: 'lost on the way back', mtu: 'largest packet',
};
let measure = 'overlay', sorting = 'health', all = false, rows = '';

const warmth = (us) => STEPS.findIndex((step) => us < step);
const heatOf = (us) => `h${warmth(us) < 0 ? STEPS.length : warmth(us)}`;

function heat() {
  const { list } = state, few = list.length <= TABLE;
  $('measures').hidden = few;
  say($('heat-hint'), few
    ? 'Each row is another host. Through the fabric packets go as pods’ do; between hosts they go beside it. There is from this host to it, back is from it to this host.'
    : `Each tile is another host, in the order of subnets: ${MEASURES[measure]}. Choose a tile for its details above.`);
  set($('map'), { tabindex: few ? '0' : '-1' });
  if (few) ways(list); else tiles(list);
  scale($('scale'), few || measure === 'overlay' || measure === 'underlay');
}

function scale(box, timed, more = []) {
  const texts = STEPS.map((step) => `under ${step / 1000} ms`).concat(`${STEPS.at(-1) / 1000} ms and more`);
  const items = timed ? texts.map((text, at) => [`h${at}`, text]) : [];
  keep(box, [...items, ...more, ...ORDER.filter((name) => name !== 'good').map((name) => [name, HEALTH[name]])], ([name]) => name,
    ([name, text]) => el('li', {}, HEALTH[name] ? glyph(name) : el('i', { class: name }), text));
}

// All ways that some host has, each with its two directions and its time.
function ways(list) {
  const kinds = new Map();
  for (const peer of list) for (const one of peer.ways) kinds.set(`${one.way} ${one.family}`, one);
  const names = [...kinds.keys()].sort(), several = new Set([...kinds.values()].map((one) => one.family)).size > 1;
  const signature = `ways ${names.join()}`;
  if (rows !== signature) {
    const title = (name) => {
      const { way: kind, family } = kinds.get(name), text = kind === 'overlay' ? 'through the fabric' : 'between hosts';
      return several ? `${text}, ${family === 'ipv6' ? 'IPv6' : 'IPv4'}` : text;
    };
    const head = el('thead', {}, el('tr', {}, el('td', { class: 'plain' }), ...names.map((name) => el('th', { colspan: 3, scope: 'colgroup' }, title(name))), el('th', { colspan: 2, scope: 'colgroup' }, 'all in all')),
      el('tr', {}, el('th', { scope: 'col' }, 'host'), ...names.flatMap(() => ['there →', '← back', 'round trip'].map((text) => el('th', { scope: 'col' }, text))),
        el('th', { scope: 'col' }, 'largest packet'), el('th', { scope: 'col' }, 'verdict')));
    $('map').replaceChildren(el('table', { class: 'matrix' }, head, el('tbody')));
    rows = signature;
  }
  const cells = names.length * 3 + 2;
  keep($('map').querySelector('tbody'), list, (peer) => peer.key,
    (peer) => el('tr', { 'data-key': peer.key }, el('th', { scope: 'row' }, subnet(peer.key)), ...Array.from({ length: cells }, () => el('td'))),
    (node, peer) => {
      set(node, { class: peer.key === state.chosen ? 'chosen' : '' });
      const values = names.flatMap((name) => {
        const one = peer.ways.find((candidate) => `${candidate.way} ${candidate.family}` === name);
        const { there, back } = legs(peer, one);
        const time = one?.p50 !== undefined && one.up !== false ? [`heat ${heatOf(one.p50)}`, `${ms(one.p50)} ms`] : ['plain', '—'];
        return [[there.health, there.word], [back.health, back.word], time];
      });
      const mtu = !peer.mtu || peer.health === 'cut' ? ['plain', '—'] : peer.mtu < peer.mtu_wanted ? ['poor', `▲ ${peer.mtu} of ${peer.mtu_wanted}`] : ['good', String(peer.mtu)];
      [...values, mtu, [peer.health, peer.verdict ?? '—']].forEach(([kind, text], at) => {
        set(node.children[at + 1], { class: kind });
        say(node.children[at + 1], text);
      });
    });
}

// What tells hosts apart: their subnets without what all of them have.
function shortened(list) {
  const parts = list.map((peer) => subnet(peer.key).split(/[./]/));
  if (parts.some((one) => one.length !== 5)) return list.map((peer) => subnet(peer.key));
  const same = (at) => parts.every((one) => one[at] === parts[0][at]);
  let [from, to] = [0, 4];
  while (from < 3 && same(from)) from += 1;
  while (to > from && same(to)) to -= 1;
  return parts.map((one) => one.slice(from, to + 1).join('.'));
}

function tileOf(peer) {
  const mark = { cut: '✕', poor: '▲', unknown: '?', good: '' }[peer.health], one = way(peer, measure === 'underlay' ? 'underlay' : 'overlay') ?? best(peer);
  const { there, back } = legs(peer, one);
  if (measure === 'there' || measure === 'back') {
    const leg = measure === 'there' ? there : back;
    return [leg.health, leg.health === 'good' ? '0 %' : leg.word.replace(' cut', '')];
  }
  if (measure === 'mtu') return !peer.mtu ? ['unknown', '?'] : [peer.mtu < peer.mtu_wanted ? 'poor' : 'good', String(peer.mtu)];
  if (one?.p50 === undefined || one.up === false) return [peer.health === 'good' ? 'unknown' : peer.health, mark || '?'];
  return [`${peer.health === 'good' ? '' : peer.health} ${heatOf(one.p50)}`, `${mark}${ms(one.p50)}`];
}

function tiles(list) {
  if (rows !== 'tiles') {
    $('map').replaceChildren(el('div', { class: 'tiles', id: 'tiles', role: 'listbox', tabindex: '0', 'aria-label': 'Other hosts. Arrow keys go from one to the next.' }));
    $('tiles').addEventListener('keydown', (event) => walk(event, getComputedStyle($('tiles')).gridTemplateColumns.split(' ').length));
    rows = 'tiles';
  }
  const names = shortened(list), index = new Map(list.map((peer, at) => [peer.key, at]));
  keep($('tiles'), list, (peer) => peer.key, (peer) => el('div', { role: 'option', 'data-key': peer.key }, el('small'), el('span')), (node, peer) => {
    const [kind, text] = tileOf(peer), at = index.get(peer.key);
    set(node, { id: `tile-${at}`, class: `tile ${kind}`, 'aria-selected': peer.key === state.chosen, 'aria-label': `${subnet(peer.key)}: ${brief(peer)}` });
    say(node.firstChild, names[at]);
    say(node.lastChild, text);
  });
  const chosen = index.get(state.chosen);
  set($('tiles'), { 'aria-activedescendant': chosen === undefined ? null : `tile-${chosen}` });
}

for (const [name, text] of Object.entries(MEASURES)) {
  const input = el('input', { type: 'radio', name: 'measure', value: name });
  input.checked = name === measure;
  input.addEventListener('change', () => { measure = name; show(); });
  $('measures').append(el('label', {}, input, text));
}
$('map').addEventListener('pointerdown', chosenBy);

// Leases and pool

function pool() {
  const { host, list } = state, box = $('pool');
  if (!box.firstChild) box.append(el('dl'), el('div'));
  const left = host.lease_ends_s === null ? 'for ever' : `for ${span(Math.max(0, host.lease_ends_s - state.now / 1000))} unless renewed`;
  const held = list.filter((peer) => peer.held).length;
  const pairs = [['this host’s', host.subnets.length ? `${host.subnets.join(', ')}, ${host.standing} ${left}` : 'none yet'],
    ['other hosts’', `${list.length}${held ? `, of which ${held} gone from the store and held` : ''}`],
    ['store', host.connected ? `${host.store} answers` : `${host.store}: ${host.store_error ?? 'does not answer'}`],
    ['kernel', `${host.converged ? 'as wanted' : 'not as wanted yet'}; ${plural(host.repairs, 'repair', 'repairs')}${mended(host)}`]];
  if (host.network?.datapath) pairs.push(['frames', `${host.network.datapath.kind}: ${host.network.datapath.because}`]);
  const told = JSON.stringify(pairs);
  if (box.told !== told) box.firstChild.replaceChildren(...pairs.flatMap(([name, text]) => [el('dt', {}, name), el('dd', {}, text)]));
  box.told = told;
  keep(box.lastChild, host.network?.pools ?? [], (one) => one.network,
    () => el('div', {}, el('h3'), el('div', { class: 'bar', role: 'meter', 'aria-valuemin': 0 }, el('i')), draw('svg', { class: 'strip', viewBox: '0 0 1000 34', preserveAspectRatio: 'none', 'aria-hidden': 'true' }), el('p', { class: 'ends' }, el('span'), el('span'))),
    paintPool);
}

function mended(host) {
  const kinds = Object.entries(host.repaired).filter(([, count]) => count > 0);
  return kinds.length ? ` (${kinds.map(([kind, count]) => `${kind} ${count}`).join(', ')})` : '';
}

function paintPool(node, one) {
  const [title, bar, strip, ends] = node.children, share = one.size ? one.leased / one.size : 0;
  const text = `${one.network}: ${one.leased} of ${one.size} subnets leased (${percent(share)})`;
  say(title, text);
  set(bar, { class: share > 0.9 ? 'bar full' : 'bar', 'aria-label': text, 'aria-valuemax': one.size, 'aria-valuenow': one.leased });
  bar.firstChild.style.width = `${Math.min(100, share * 100)}%`;
  const net = /^(\d+\.\d+\.\d+\.\d+)\/(\d+)$/.exec(one.network);
  const shown = net ? [...state.list.map((peer) => [peer.key, peer.health]), ...state.host.subnets.map((own) => [own.replace('/', '-'), 'own'])] : [];
  const spots = shown.filter(([key]) => order(key) !== Infinity);
  strip.style.display = ends.style.display = net ? '' : 'none';
  if (!net) return;
  const start = number(net[1]), size = 2 ** (32 - Number(net[2]));
  keep(strip, spots, ([key]) => key, () => draw('rect', { y: 3, height: 28 }), (spot, [key, health]) => {
    const wide = (1000 * 2 ** (32 - Number(key.split('-')[1]))) / size, least = health === 'own' ? 5 : 2.5;
    set(spot, { class: health, x: Math.max(0, Math.min(996, (1000 * (order(key) - start)) / size)).toFixed(1), width: Math.max(wide - 0.6, least).toFixed(1) });
  });
  const last = start + size - 1, address = [24, 16, 8, 0].map((shift) => Math.floor(last / 2 ** shift) % 256).join('.');
  say(ends.firstChild, net[1]);
  say(ends.lastChild, address);
}

// What happened

function happened() {
  const kind = $('kinds').value, events = state.events.filter((event) => !kind || event.kind === kind);
  keep($('event-list'), events, (event) => event.number,
    (event) => el('li', { class: event.kind }, el('time', { datetime: new Date(event.at_ms).toISOString() }, clock(event.at_ms)), el('b', {}, mark(event.kind), ` ${KINDS[event.kind]}`), el('span', {}, event.text)));
  const svg = $('timeline'), oldest = Math.min(state.events.at(-1)?.at_ms ?? state.now, state.now - 60_000);
  const wide = svg.clientWidth || 600, x = (at) => 12 + ((wide - 24) * (at - oldest)) / (state.now - oldest);
  if (!svg.firstChild) svg.append(draw('line', { class: 'axis' }), draw('text', { x: 4, y: 50 }), draw('text', { y: 50, 'text-anchor': 'end' }), draw('g'));
  set(svg.children[0], { x1: 4, x2: wide - 4, y1: 22, y2: 22 });
  set(svg.children[2], { x: wide - 4 });
  say(svg.children[1], clock(oldest));
  say(svg.children[2], 'now');
  keep(svg.lastChild, events, (event) => event.number, (event) => { const node = mark(event.kind); set(node, { width: 16, height: 16 }); return draw('g', { class: `mark ${event.kind}` }, node); },
    (node, event) => set(node, { transform: `translate(${(x(event.at_ms) - 8).toFixed(1)} ${event.kind === 'trouble' ? 2 : event.kind === 'repair' ? 14 : 24})` }));
}

function mark(kind) {
  if (kind !== 'repair') return glyph({ trouble: 'cut', better: 'good', news: 'unknown' }[kind]);
  return draw('svg', { viewBox: '0 0 16 16', class: 'glyph repair', 'aria-hidden': 'true' }, draw('path', { d: 'M6.5 1.5h3v5h5v3h-5v5h-3v-5h-5v-3h5Z' }));
}

// All other hosts

const COLUMNS = {
  host: ['host', (peer) => subnet(peer.key), (a, b) => order(a.key) - order(b.key)],
  at: ['address', (peer) => peer.at.join(', ')],
  health: ['health', (peer) => `${HEALTH[peer.health]}${peer.verdict && peer.verdict !== 'ok' ? `: ${peer.verdict}` : ''}`, badness],
  since: ['for', brieflyLasting, (a, b) => (b.since ?? 0) - (a.since ?? 0)],
  path: ['path', (peer) => PATHS[peer.path] ?? peer.backend],
  rtt: ['median ms', (peer) => (best(peer) ? ms(best(peer).p50) : '—'), (a, b) => (best(b)?.p50 ?? -1) - (best(a)?.p50 ?? -1)],
  p99: ['p99 ms', (peer) => (best(peer)?.p99 ? ms(best(peer).p99) : '—'), (a, b) => (best(b)?.p99 ?? -1) - (best(a)?.p99 ?? -1)],
  loss: ['lost', (peer) => (peer.ways.length ? percent(lossy(peer)) : '—'), (a, b) => lossy(b) - lossy(a)],
  mtu: ['largest packet', (peer) => peer.mtu || '—', (a, b) => (a.mtu || 1e9) - (b.mtu || 1e9)],
  cause: ['why', (peer) => [peer.held ? 'gone from the store, held' : '', peer.cause ?? ''].filter(Boolean).join('; ')],
};
const NUMBERS = ['since', 'rtt', 'p99', 'loss', 'mtu'], STYLES = { at: 'nowrap', health: 'word', path: 'nowrap', cause: 'cause' };

function table() {
  const box = $('table'), names = Object.keys(COLUMNS);
  if (!box.firstChild) {
    const head = names.map((name) => {
      const [text, , compare] = COLUMNS[name], button = el('button', { type: 'button' }, text);
      button.addEventListener('click', () => { sorting = name; show(); });
      return el('th', { scope: 'col', class: NUMBERS.includes(name) ? 'number' : '', 'data-name': name }, compare ? button : text);
    });
    box.append(el('caption', { class: 'hidden' }, 'All other hosts as this one reaches them'), el('thead', {}, el('tr', {}, ...head)), el('tbody'));
  }
  for (const head of box.querySelectorAll('th[data-name]')) set(head, { 'aria-sort': head.dataset.name === sorting ? (sorting === 'host' ? 'ascending' : 'descending') : null });
  const wanted = $('filter').value.trim().toLowerCase();
  const text = (peer) => [peer.key, subnet(peer.key), peer.at, peer.node, peer.verdict, HEALTH[peer.health], peer.cause].join(' ').toLowerCase();
  const found = state.list.filter((peer) => !wanted || text(peer).includes(wanted)).sort(COLUMNS[sorting][2]);
  const shown = all ? found : found.slice(0, ROWS);
  keep(box.lastChild, shown, (peer) => peer.key,
    (peer) => el('tr', { 'data-key': peer.key }, el('th', { scope: 'row' }, subnet(peer.key)), ...names.slice(1).map((name) => el('td', { class: NUMBERS.includes(name) ? 'number' : STYLES[name] }))),
    (node, peer) => {
      set(node, { class: peer.health });
      names.slice(1).forEach((name, at) => say(node.children[at + 1], String(COLUMNS[name][1](peer))));
    });
  const more = $('more');
  if (!more.firstChild) {
    const button = el('button', { type: 'button' });
    button.addEventListener('click', () => { all = !all; show(); });
    more.append(el('span'), ' ', button);
  }
  say(more.firstChild, `${shown.length} of ${plural(state.list.length, 'host', 'hosts')}${wanted ? ` shown, ${found.length} match` : ' shown'}`);
  more.lastChild.hidden = found.length <= ROWS;
  say(more.lastChild, all ? `Show the first ${ROWS}` : `Show all ${found.length}`);
}

$('filter').addEventListener('input', () => state.host && show());
$('kinds').addEventListener('change', () => state.host && show());
connect();
setInterval(beat, 1000);
