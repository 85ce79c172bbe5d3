// How the points of the map look: shapes and colours, and what they are coloured by.

const COLOURS = 10;

const SHAPES = [
  (c, r) => c.arc(0, 0, r, 0, 7),
  (c, r) => c.rect(-r * 0.9, -r * 0.9, r * 1.8, r * 1.8),
  (c, r) => polygon(c, [[0, -r * 1.2], [r * 1.15, r * 0.85], [-r * 1.15, r * 0.85]]),
  (c, r) => polygon(c, [[0, -r * 1.3], [r * 1.3, 0], [0, r * 1.3], [-r * 1.3, 0]]),
  (c, r) => polygon(c, [[0, r * 1.2], [r * 1.15, -r * 0.85], [-r * 1.15, -r * 0.85]]),
  (c, r) => cross(c, r * 1.25, 0),
  (c, r) => cross(c, r * 1.25, Math.PI / 4),
  (c, r) => polygon(c, [0, 1, 2, 3, 4].map((k) => around(k / 5, r * 1.2))),
  (c, r) => polygon(c, Array.from({ length: 10 }, (_, k) => around(k / 10, k % 2 ? r * 0.6 : r * 1.5))),
  (c, r) => {
    c.arc(0, 0, r * 1.1, 0, 2 * Math.PI);
    c.moveTo(r * 0.5, 0);
    c.arc(0, 0, r * 0.5, 0, 2 * Math.PI, true); // a ring
  },
];

function around(turn, r) {
  return [r * Math.sin(turn * 2 * Math.PI), -r * Math.cos(turn * 2 * Math.PI)];
}

function polygon(c, corners) {
  corners.forEach(([x, y], k) => (k ? c.lineTo(x, y) : c.moveTo(x, y)));
  c.closePath();
}

function cross(c, r, turn) {
  const w = r * 0.34;
  const corners = [[-w, -r], [w, -r], [w, -w], [r, -w], [r, w], [w, w], [w, r], [-w, r], [-w, w], [-r, w], [-r, -w], [-w, -w]];
  const cos = Math.cos(turn);
  const sin = Math.sin(turn);
  polygon(c, corners.map(([x, y]) => [x * cos - y * sin, x * sin + y * cos]));
}

function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// A marker, drawn once and then stamped wherever it is needed.
function stampOf(style, r, ratio) {
  const half = Math.ceil(r * 1.6 + 1);
  const canvas = document.createElement('canvas');
  canvas.width = 2 * half * ratio;
  canvas.height = 2 * half * ratio;
  const c = canvas.getContext('2d');
  c.scale(ratio, ratio);
  c.translate(half, half);
  c.beginPath();
  SHAPES[style.shape % SHAPES.length](c, r);
  c.globalAlpha = style.faint ? 0.55 : 0.9;
  c.fillStyle = themeColour(style.colour);
  c.fill();
  if (!style.faint) {
    c.globalAlpha = 1;
    c.lineWidth = Math.min(0.75, r / 4);
    c.strokeStyle = themeColour('surface');
    c.stroke();
  }
  return { canvas, half };
}

const GREY = { shape: 0, colour: 'point', faint: true };

// A colouring gives each image a group, and each group that is on a style.
function byClasses(id, name, of) {
  const groups = images.classes.map((title) => ({ title, style: null }));
  images.highlighted.forEach((number, place) => {
    groups[number].style = { shape: place, colour: `c${place}` };
  });
  const present = new Set();
  of.forEach((list) => list.forEach((number) => present.add(number)));
  const groupOf = (image) => {
    const list = of[image];
    for (let k = 0; k < list.length; k += 1) if (groups[list[k]].style) return list[k];
    return list.length ? list[0] : -1;
  };
  const order = [...images.highlighted, ...groups.keys()];
  const shown = [...new Set(order)].filter((number) => present.has(number));
  return { id, name, groups, groupOf, shown };
}

function byWords(id, name, titles, groupOf) {
  const groups = titles.map(([title, style]) => ({ title, style }));
  return { id, name, groups, groupOf, shown: [...groups.keys()] };
}

function colourings() {
  const every = Array.from({ length: images.count }, (_, image) => image);
  const found = [];
  if (images.labels.some((list) => list.length)) found.push(byClasses('label', 'class', images.labels));
  if (images.guesses.some((list) => list.length)) found.push(byClasses('guess', 'guess', images.guesses));
  if (every.some(hasBoth)) {
    const titles = [['right', { shape: 0, colour: 'bar' }], ['wrong', { shape: 6, colour: 'wrong' }]];
    found.push(byWords('right', 'right or wrong', titles, (image) => (hasBoth(image) ? Number(isWrong(image)) : -1)));
  }
  const splits = [...new Set(images.splits)].filter(Boolean).sort();
  if (splits.length) {
    const titles = splits.map((split, place) => [split, { shape: place, colour: `c${place}` }]);
    found.push(byWords('split', 'split', titles, (image) => splits.indexOf(images.splits[image])));
  }
  return found.length ? found : [byWords('none', 'nothing', [], () => -1)];
}

// Switches a group on or off; where all colours are taken, the one that is on longest gives way.
function toggle(colouring, number) {
  const group = colouring.groups[number];
  if (group.style) {
    group.kept = group.style;
    group.style = null;
    return;
  }
  const on = colouring.groups.filter((other) => other.style);
  const taken = new Set(on.map((other) => other.style.colour));
  if (group.kept && !taken.has(group.kept.colour)) {
    group.style = group.kept;
    return;
  }
  let place = 0;
  while (place < COLOURS && taken.has(`c${place}`)) place += 1;
  if (place === COLOURS) {
    place = Number(on[0].style.colour.slice(1));
    on[0].style = null;
  }
  group.style = { shape: place, colour: `c${place}` };
}
