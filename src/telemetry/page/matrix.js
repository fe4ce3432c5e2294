// The whole fabric: what becomes of packets from each host to each other one, by what both of them say.

const GRID = 64, PICTURE = 1024, WORDY = 12, NUMBERED = 24, PAIRS = 60;
const LEGS = { '?': 'unknown', '+': 'good', '~': 'poor', 'x': 'cut' };
const WORSE = ['unknown', 'good', 'poor', 'cut'];
const PASSING = { 'underlay-down': 'poor', 'agent-down': 'poor' };
const FINE = { verdict: 'ok', rtt: 0, there: 'good', back: 'good' };

state.fabric = { keys: [''], rows: new Map(), full: true };
state.pairs = [];

// What comes without names: hosts have numbers, 0 is this one, whose key is empty here.
function hear({ full, keys, rows = [], gone = [] }) {
  const fabric = state.fabric;
  fabric.full = full;
  if (keys) [fabric.keys, fabric.rows] = [['', ...keys], new Map()];
  for (const number of gone) fabric.rows.delete(fabric.keys[number]);
  for (const [number, age, failing, cells] of rows) {
    const said = cells.map(([about, rtt, verdict = 'ok', there = '+', back = '+']) => [fabric.keys[about], { verdict, rtt, there: LEGS[there], back: LEGS[back] }]);
    fabric.rows.set(fabric.keys[number], { age, failing, said: new Map(said) });
  }
}

const called = (key) => (key ? subnet(key) : 'this host');

// What a host says of another one; nothing if that is not known.
function says(from, about) {
  if (from === '') {
    const peer = state.peers.get(about), one = peer && (way(peer, 'overlay') ?? best(peer));
    if (!peer?.verdict || peer.health === 'unknown') return undefined;
    const { there, back } = legs(peer, one);
    return { verdict: peer.verdict, rtt: one?.up === false ? 0 : one?.p50 ?? 0, there: there.health, back: back.health, cause: peer.cause };
  }
  const row = state.fabric.rows.get(from);
  // Of many hosts only what fails is told.
  return row?.said.get(about) ?? (row && !state.fabric.full && row.failing === row.said.size && state.peers.get(about)?.verdict !== 'unknown' ? FINE : undefined);
}

function pair(from, to) {
  const here = says(from, to), there = says(to, from);
  let health = WORSE[Math.max(0, WORSE.indexOf(here?.there), WORSE.indexOf(there?.back))];
  // Nobody says what becomes of it, and nothing comes back.
  if (health === 'unknown' && here && here.verdict !== 'unknown' && here.verdict !== 'ok') health = 'cut';
  if (health === 'good') health = PASSING[here?.verdict] ?? 'good';
  const age = Math.max(state.fabric.rows.get(from)?.age ?? 0, state.fabric.rows.get(to)?.age ?? 0);
  return { from, to, health, rtt: health === 'cut' || health === 'unknown' ? 0 : here?.rtt ?? 0, here, there, age };
}

function account(who, whom, said) {
  const [a, b] = [called(who), called(whom)];
  const text = said.cause || {
    'ok': `packets pass both ways${said.there === 'poor' || said.back === 'poor' ? ', and some are lost' : ''}`,
    'unknown': 'it is too early to say',
    'port-eaten': `the hosts reach each other, but what is sent to the tunnel’s port is lost${said.there === 'cut' ? ` on the way to ${b}` : said.back === 'cut' ? ` on the way from ${b}` : ''}`,
    'overlay-down': 'the hosts reach each other, but not through the fabric: one of them is not as it should be yet',
    'underlay-down': 'the fabric carries, and the probes’ own port is blocked between the hosts',
    'one-way': `what ${b} sends arrives at ${a}, and what ${a} sends there does not`,
    'agent-down': `the agent of ${b} does not answer, and its kernel does`,
    'peer-down': `nothing comes from ${b}`,
  }[said.verdict] || said.verdict;
  return `${a === 'this host' ? 'This host' : a} says ${said.verdict}: ${text}.`;
}

function reason({ from, to, health, rtt, here, there, age }) {
  const words = [`${called(from)} → ${called(to)}: ${HEALTH[health]}${rtt ? `, ${ms(rtt)} ms` : ''}.`];
  const told = (said) => said && said !== FINE && !(health === 'good' && said.verdict === 'ok');
  if (told(here)) words.push(account(from, to, here));
  if (told(there)) words.push(account(to, from, there));
  if (!here && !there) words.push('Neither of the two was heard of it.');
  if (age) words.push(`Heard ${span(age)} ago.`);
  return words.join(' ');
}

// The pairs of which something is wrong, the worst first, and those of other hosts before those that are shown above.
function troubled() {
  const seen = new Set(), found = [];
  const look = (from, to) => {
    if (seen.has(`${from} ${to}`)) return;
    seen.add(`${from} ${to}`);
    const one = pair(from, to);
    if (one.health === 'cut' || one.health === 'poor') found.push(one);
  };
  const both = (a, b) => { look(a, b); look(b, a); };
  for (const [from, row] of state.fabric.rows) {
    for (const [about, said] of row.said) if (said.verdict !== 'ok' || said.there !== 'good' || said.back !== 'good') both(from, about);
  }
  for (const peer of state.list) if (peer.health === 'cut' || peer.health === 'poor') both('', peer.key);
  const rank = (one) => (one.health === 'cut' ? 0 : 2) + (one.from && one.to ? 0 : 1);
  return found.sort((a, b) => rank(a) - rank(b));
}

function matrix() {
  const hosts = ['', ...state.list.map((peer) => peer.key)], known = state.list.filter((peer) => state.fabric.rows.has(peer.key)).length;
  $('matrix').hidden = hosts.length < 2;
  const grid = hosts.length <= GRID, picture = !grid && hosts.length <= PICTURE;
  const heard = known === state.list.length ? `All ${plural(known, 'other host', 'other hosts')} told what they find.` : `${known} of ${plural(state.list.length, 'other host', 'other hosts')} told what they find.`;
  say($('matrix-hint'), `Rows send, columns receive. Each direction is by what both hosts say of it. ${heard}${grid ? ' Arrow keys go from cell to cell.' : ''}`);
  $('grid').hidden = !grid;
  $('dots').hidden = !picture;
  if (grid) cells(hosts);
  if (picture) dots(hosts);
  scale($('matrix-scale'), true, picture ? [['told', 'nothing wrong is told']] : []);
  trouble();
}

function trouble() {
  const { pairs } = state, more = [...state.fabric.rows.values()].reduce((sum, row) => sum + Math.max(0, row.failing - row.said.size), 0);
  const rest = pairs.length - PAIRS + more;
  const items = pairs.slice(0, PAIRS).map((one) => [`${one.from} ${one.to}`, one.health, reason(one)]);
  if (rest > 0) items.push(['more', 'unknown', `And ${rest} more.`]);
  keep($('pairs'), items, ([id, health]) => `${id} ${health}`, ([, health]) => el('li', { class: health }, glyph(health), el('span')), (node, [, , text]) => say(node.lastChild, text));
  $('pairs').hidden = items.length === 0;
}

// Up to 64 hosts: a grid of cells, each of which says all there is to say.
function cells(hosts) {
  const box = $('grid'), few = hosts.length <= WORDY, size = few ? 'wordy' : hosts.length <= NUMBERED ? 'numbered' : 'dense';
  const told = hosts.join(' ');
  if (box.told !== told) {
    const names = shortened([{ key: state.host.subnets[0]?.replace('/', '-') ?? '' }, ...state.list]);
    const title = (key, at) => (few ? called(key) : names[at] || 'own');
    const head = el('tr', {}, el('td', { class: 'plain' }, 'from ↓ to →'), ...hosts.map((key, at) => el('th', { scope: 'col', abbr: called(key) }, el('span', {}, title(key, at)))));
    const body = hosts.map((from, at) => el('tr', {}, el('th', { scope: 'row' }, title(from, at)), ...hosts.map(() => el('td', { tabindex: -1 }))));
    box.replaceChildren(el('table', { class: `matrix all ${size}`, role: 'grid', 'aria-labelledby': 'matrix-title' }, el('thead', {}, head), el('tbody', {}, ...body)));
    [box.told, box.rows] = [told, body.map((row) => [...row.children].slice(1))];
    box.rows[0][1].tabIndex = 0;
  }
  hosts.forEach((from, row) => hosts.forEach((to, column) => {
    const node = box.rows[row][column];
    if (from === to) {
      set(node, { class: 'plain', 'aria-label': `${called(from)} itself` });
      return say(node, '·');
    }
    const one = pair(from, to), sign = JSON.stringify([one.health, one.rtt, one.age, one.here, one.there]);
    if (node.sign === sign) return;
    const number = one.rtt && size !== 'dense' ? ms(one.rtt) : '', mark = { cut: few ? '✕ cut' : '✕', poor: '▲', unknown: '?', good: number ? '' : size === 'dense' ? '' : '✓' }[one.health];
    const heat = one.health === 'good' && one.rtt ? `heat ${heatOf(one.rtt)}` : one.health;
    set(node, { class: `${heat}${one.age ? ' old' : ''}`, 'aria-label': reason(one), 'data-from': from, 'data-to': to });
    say(node, one.health === 'cut' ? mark : [mark, number && few ? `${number} ms` : number].filter(Boolean).join(' '));
    node.sign = sign;
    if (node === document.activeElement) say($('pair'), reason(one));
  }));
}

// Hundreds of hosts: a point for each pair, and what fails larger than it is, so that it is seen.
function dots(hosts) {
  const canvas = $('dots'), count = hosts.length, size = count <= 170 ? 6 : count <= 340 ? 3 : 2, wide = count * size;
  const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(`--${name}`);
  if (canvas.width !== wide) [canvas.width, canvas.height] = [wide, wide];
  canvas.hosts = hosts;
  const cuts = state.pairs.filter((one) => one.health === 'cut').length;
  set(canvas, { 'aria-label': `A picture of ${count} by ${count} hosts, in the order of subnets. ${plural(cuts, 'direction is', 'directions are')} cut; they are listed below.` });
  const brush = canvas.getContext('2d'), at = new Map(hosts.map((key, index) => [key, index]));
  const paint = (name, x, y, w, h) => { brush.fillStyle = colour(name); brush.fillRect(x, y, w, h); };
  paint('unknown-wash', 0, 0, wide, wide);
  for (const [key, { age, failing, said }] of state.fabric.rows) {
    brush.globalAlpha = age ? 0.5 : 1;
    if (at.has(key) && failing <= said.size) paint('told', 0, at.get(key) * size, wide, size);
  }
  brush.globalAlpha = 1;
  for (const peer of state.list) {
    const one = pair('', peer.key);
    if (one.rtt) paint(heatOf(one.rtt), at.get(peer.key) * size, 0, size, size);
  }
  const big = Math.max(size, 5), off = (big - size) / 2;
  for (const { from, to, health } of [...state.pairs].reverse()) if (at.has(from) && at.has(to)) paint(health, at.get(to) * size - off, at.get(from) * size - off, big, big);
}

function move(event) {
  const { rows } = $('grid'), cell = event.target.closest('td'), row = rows?.findIndex((one) => one.includes(cell));
  if (!rows || row < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const column = rows[row].indexOf(cell), last = rows.length - 1;
  const [down, right] = { ArrowDown: [row + 1, column], ArrowUp: [row - 1, column], ArrowRight: [row, column + 1], ArrowLeft: [row, column - 1], Home: [row, 0], End: [row, last] }[event.key] ?? [];
  if (down === undefined) return;
  event.preventDefault();
  rows[Math.min(Math.max(down, 0), last)][Math.min(Math.max(right, 0), last)].focus();
}

$('grid').addEventListener('keydown', move);
$('grid').addEventListener('focusin', ({ target }) => {
  if (target.tagName !== 'TD') return;
  for (const cell of $('grid').querySelectorAll('td[tabindex="0"]')) cell.tabIndex = -1;
  target.tabIndex = 0;
  say($('pair'), target.ariaLabel ?? '');
});
$('grid').addEventListener('pointerdown', (event) => event.target.closest('td')?.focus({ preventScroll: true }));
$('dots').addEventListener('pointermove', (event) => {
  const { hosts } = $('dots'), { left, top, width } = $('dots').getBoundingClientRect();
  const [to, from] = [event.clientX - left, event.clientY - top].map((at) => hosts[Math.floor((at * hosts.length) / width)]);
  if (from !== undefined && to !== undefined && from !== to) say($('pair'), reason(pair(from, to)));
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => state.host && show());
