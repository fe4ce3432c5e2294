// The fabric as a picture: this host in the middle, the others around it.

const FEW = 24, LABELS = 14;

function outline(health, r) {
  const a = r * 1.15, b = r * 0.42;
  switch (health) {
    case 'poor': return `M0 ${-r * 1.25} ${r * 1.2} ${r * 0.9} ${-r * 1.2} ${r * 0.9}Z`;
    case 'cut': return `M${-a} ${-a + b} ${-b} 0 ${-a} ${a - b} ${-a + b} ${a} 0 ${b} ${a - b} ${a} ${a} ${a - b} ${b} 0 ${a} ${-a + b} ${a - b} ${-a} 0 ${-b} ${-a + b} ${-a}Z`;
    default: return `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
  }
}

function glyph(health) {
  const path = draw('path', { d: outline(health, 6), transform: 'translate(8 8)' });
  if (health === 'unknown') set(path, { class: 'open' });
  return draw('svg', { viewBox: '0 0 16 16', class: `glyph ${health}`, 'aria-hidden': 'true' }, path);
}

// Where everything is: labelled on an ellipse while there is room, else on rings, in the order of subnets.
function plan(count) {
  if (count <= FEW) {
    const height = count <= 2 ? 330 : count <= 8 ? 500 : 640, rx = 370, ry = height / 2 - 78;
    const start = count === 2 ? Math.PI : -Math.PI / 2;
    const at = (index) => {
      const angle = start + (2 * Math.PI * index) / Math.max(count, 1);
      return [500 + rx * Math.cos(angle), height / 2 - 14 + ry * Math.sin(angle)];
    };
    return { height, at, middle: [500, height / 2 - 14], size: 17, few: true };
  }
  const rings = Math.max(1, Math.round(Math.sqrt(count / 20))), height = 700;
  const at = (index) => {
    const angle = -Math.PI / 2 + (2 * Math.PI * index) / count;
    const radius = rings === 1 ? 300 : 325 - (index % rings) * (185 / (rings - 1));
    return [500 + radius * 1.42 * Math.cos(angle), height / 2 + radius * Math.sin(angle)];
  };
  return { height, at, middle: [500, height / 2], size: count > 600 ? 4 : count > 150 ? 5 : count > 60 ? 7 : 9, few: false };
}

function picture() {
  const { list } = state, svg = $('picture'), where = plan(list.length);
  set(svg, { viewBox: `0 0 1000 ${where.height}`, class: where.few ? 'few' : 'many' });
  const layers = svg.layers ??= [{ 'aria-hidden': 'true' }, { 'aria-hidden': 'true' }, { role: 'presentation' }].map((kind) => svg.appendChild(draw('g', kind)));
  const placed = list.map((peer, index) => ({ peer, index, point: where.at(index) }));
  keep(layers[0], placed, (one) => one.peer.key, () => draw('g', {}, draw('path'), draw('path', { class: 'broken' })),
    (node, one) => link(node, one, where));
  self(layers[1], where);
  const labels = where.few ? new Set(list.map((peer) => peer.key)) : labelled(placed);
  keep(layers[2], placed, (one) => one.peer.key, host, (node, one) => place(node, one, where, labels));
  const chosen = list.findIndex((peer) => peer.key === state.chosen);
  set(svg, { 'aria-activedescendant': chosen < 0 ? null : `host-${chosen}` });
  legend(list);
  $('next-trouble').hidden = !list.some((peer) => peer.health === 'cut' || peer.health === 'poor');
}

function link(node, { peer, point: [x, y] }, where) {
  const [cx, cy] = where.middle, length = Math.hypot(x - cx, y - cy) || 1;
  const along = (t) => `${(cx + (x - cx) * t).toFixed(1)} ${(cy + (y - cy) * t).toFixed(1)}`;
  const from = (where.few ? 62 : 34) / length, to = 1 - (where.few ? 27 : where.size + 1) / length;
  const { there, back } = legs(peer, way(peer, 'overlay') ?? best(peer));
  // The gap is where packets stop: near the other host if none get there, near this one if none come back.
  const gone = peer.health !== 'cut' ? null : there.health === 'cut' && back.health !== 'cut' ? 0.78 : back.health === 'cut' && there.health !== 'cut' ? 0.36 : 0.56;
  const gap = 18 / length;
  const line = gone === null || !where.few ? `M${along(from)}L${along(to)}` : `M${along(from)}L${along(gone - gap)}M${along(gone + gap)}L${along(to)}`;
  set(node.firstChild, { d: line, class: `link ${peer.health} ${peer.path ?? ''}${peer.key === state.chosen ? ' chosen' : ''}` });
  const [bx, by] = [cx + (x - cx) * (gone ?? 0), cy + (y - cy) * (gone ?? 0)];
  const cross = gone === null || !where.few ? '' : `M${bx - 8} ${by - 8}l16 16m0-16l-16 16`;
  set(node.lastChild, { d: cross });
}

function self(layer, where) {
  const [cx, cy] = where.middle, half = where.few ? 34 : 22, net = state.host.subnets[0] ?? 'no lease yet';
  if (!layer.firstChild) {
    layer.append(draw('g', { class: 'self' }, draw('rect', { class: 'body' }), draw('path'), draw('rect', { class: 'back' }), draw('text'), draw('text', { class: 'small' })));
  }
  const [body, weave, back, name, note] = layer.firstChild.children;
  set(body, { x: cx - half, y: cy - half, width: 2 * half, height: 2 * half, rx: half / 2.6 });
  const q = half * 0.62;
  set(weave, { d: `M${cx - q} ${cy}l${q} ${-q}M${cx - q} ${cy + q}l${2 * q} ${-2 * q}M${cx} ${cy + q}l${q} ${-q}` });
  set(back, { x: cx - 75, y: cy + half + 4, width: 150, height: where.few ? 44 : 24, rx: 6 });
  set(name, { x: cx, y: cy + half + 21 });
  set(note, { x: cx, y: cy + half + 40 });
  say(name, where.few ? 'this host' : net);
  say(note, where.few ? net : '');
}

function host() {
  return draw('g', { class: 'host', role: 'option' }, draw('circle', { class: 'halo' }), draw('path', { class: 'shape' }),
    draw('rect', { class: 'back' }), draw('text'), draw('text', { class: 'small' }));
}

function place(node, { peer, index, point: [x, y] }, where, labels) {
  const [halo, shape, back, name, note] = node.children, trouble = peer.health === 'cut' || peer.health === 'poor';
  const size = where.few ? where.size : trouble ? where.size * 1.55 : where.size;
  const at = peer.key;
  set(node, { id: `host-${index}`, class: `host ${peer.health}`, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
    'data-key': at, 'aria-selected': at === state.chosen, 'aria-label': `${subnet(at)}: ${brief(peer)}` });
  set(halo, { r: size + (where.few ? 8 : 5) });
  set(shape, { d: outline(peer.health, size), class: `shape${peer.health === 'unknown' ? ' open' : ''}` });
  const told = labels.has(at);
  set(back, told ? { x: -72, y: size + 11, width: 144, height: where.few ? 40 : 20, rx: 5 } : { width: 0, height: 0 });
  set(name, { y: size + (where.few ? 28 : 25) });
  set(note, { y: size + 46 });
  say(name, told ? subnet(at) : '');
  const first = best(peer), lost = lossy(peer);
  const time = first ? `${ms(first.p50)} ms${lost > 0 ? `, ${percent(lost)} lost` : ''}` : HEALTH[peer.health];
  say(note, !told || !where.few ? '' : peer.health === 'cut' ? peer.verdict : time);
}

// Names for hosts in trouble, as many as fit without covering each other; the chosen one has the first.
function labelled(placed) {
  const wanted = placed.filter(({ peer }) => peer.health === 'cut' || peer.health === 'poor' || peer.key === state.chosen);
  wanted.sort((a, b) => (b.peer.key === state.chosen) - (a.peer.key === state.chosen) || badness(a.peer, b.peer));
  const taken = [[500, 372]], named = new Set();
  for (const { peer, point: [x, y] } of wanted) {
    if (named.size === LABELS) break;
    if (taken.some(([tx, ty]) => Math.abs(tx - x) < 150 && Math.abs(ty - y) < 24)) continue;
    taken.push([x, y]);
    named.add(peer.key);
  }
  return named;
}

function legend(list) {
  const paths = Object.entries(PATHS).filter(([name]) => list.some((peer) => peer.path === name));
  const count = (name) => list.filter((peer) => peer.path === name).length;
  const health = ORDER.filter((name) => list.some((peer) => peer.health === name));
  const items = [...health.map((name) => [name, HEALTH[name]]), ...paths.map(([name, text]) => [name, `${text}: ${count(name)}`])];
  keep($('legend'), items, ([name]) => name, ([name]) => el('li', {}, PATHS[name]
    ? draw('svg', { class: 'line', 'aria-hidden': 'true' }, draw('path', { class: `link ${name}`, d: 'M0 5H34' })) : glyph(name), el('span')),
  (node, [, text]) => say(node.lastChild, text));
}

// Keys: the same in the picture and in the map.
function walk(event, columns) {
  const { list } = state, at = list.findIndex((peer) => peer.key === state.chosen), page = Math.max(10, columns);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page }[event.key];
  const next = event.key === 'Home' ? 0 : event.key === 'End' ? list.length - 1 : step === undefined ? undefined : at + step;
  if (next === undefined || list.length === 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  pick(list[Math.min(Math.max(next, 0), list.length - 1)].key);
}

function nextTrouble() {
  const { list } = state, at = list.findIndex((peer) => peer.key === state.chosen);
  const after = [...list.slice(at + 1), ...list.slice(0, at + 1)];
  const found = after.find((peer) => peer.health === 'cut') ?? after.find((peer) => peer.health === 'poor');
  if (found) pick(found.key);
  $('picture').focus({ preventScroll: true });
}

function chosenBy(event) {
  const node = event.target.closest?.('[data-key]');
  if (node) pick(node.getAttribute('data-key'));
}

$('picture').addEventListener('keydown', (event) => walk(event, 1));
$('picture').addEventListener('pointerdown', chosenBy);
$('next-trouble').addEventListener('click', nextTrouble);
