// The map in use: pointer, touch, keyboard, legend and lists.

const CLOSE = 14; // pixels within which a point is meant

function showTip(image) {
  const tip = mapPart('tip');
  map.at = image;
  tip.hidden = image < 0;
  repaint();
  if (image < 0) return;
  if (tip.dataset.image !== String(image)) {
    tip.dataset.image = image;
    const said = make('div');
    const key = make('p', 'key');
    key.append(isolated(lastPart(images.keys[image])));
    said.append(key, saidOf(image));
    tip.replaceChildren(pictureOf(image), said);
  }
  const x = map.places[2 * image];
  const y = map.places[2 * image + 1];
  const left = x + 16 + tip.offsetWidth > map.width ? x - 16 - tip.offsetWidth : x + 16;
  const top = Math.min(Math.max(y - tip.offsetHeight / 2, 4), map.height - tip.offsetHeight - 4);
  tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
}

function sayImage(image) {
  const words = [lastPart(images.keys[image]), names(images.labels[image]) || 'no label'];
  const guess = names(images.guesses[image]);
  if (guess) words.push(`taken for ${guess}, ${percent(images.confidences[image])}`);
  mapPart('said').textContent = words.join('; ');
}

function list(found, title) {
  const panel = document.getElementById('map-panel');
  map.listed = new Set(found);
  repaint();
  if (!found.length) {
    mapPart('said').textContent = 'No image lies there.';
    panel.hidden = true;
    panel.replaceChildren();
    return null;
  }
  const heading = showPanel(panel, `${counted(found.length, 'image')} ${title}`, classesAmong(found), found, () => {
    map.listed = new Set();
    map.lasso = [];
    map.canvas.focus();
    repaint();
  });
  mapPart('said').textContent = `${heading.textContent}, listed below the map.`;
  reveal(panel);
  return heading;
}

function classesAmong(found) {
  const counts = new Map();
  for (const image of found) {
    const name = names(images.labels[image]) || 'no label';
    counts.set(name, (counts.get(name) || 0) + 1);
  }
  const sorted = [...counts].sort((a, b) => b[1] - a[1]);
  const said = sorted.slice(0, 6).map(([name, count]) => `${name} ${count.toLocaleString('en')}`);
  if (sorted.length > 6) said.push(`and ${counted(sorted.length - 6, 'other group')}`);
  return said.join(', ');
}

function placeOfEvent(event) {
  const box = map.canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

function startPointer() {
  const pointers = new Map();
  let start = null;
  let moved = false;
  const canvas = map.canvas;
  canvas.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, placeOfEvent(event));
    start = placeOfEvent(event);
    moved = pointers.size > 1;
    map.lasso = [];
  });
  canvas.addEventListener('pointermove', (event) => {
    const [x, y] = placeOfEvent(event);
    if (!pointers.has(event.pointerId)) {
      if (event.pointerType === 'mouse') showTip(near(x, y, CLOSE)[0] ?? -1);
      return;
    }
    const before = pointers.get(event.pointerId);
    if (pointers.size === 2) pinch(event.pointerId, [x, y]);
    else if (!moved && Math.hypot(x - start[0], y - start[1]) < 5) return;
    else dragTo(x, y, before);
    moved = true;
    pointers.set(event.pointerId, [x, y]);
  });
  const pinch = (id, now) => {
    const other = [...pointers].find(([key]) => key !== id)[1];
    const before = pointers.get(id);
    const spread = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
    zoomAt(spread(now) / Math.max(spread(before), 1), other[0], other[1]);
  };
  const dragTo = (x, y, before) => {
    if (map.drag === 'move') {
      map.panX += x - before[0];
      map.panY += y - before[1];
      map.stale = true;
    } else {
      if (!map.lasso.length) map.lasso.push(start);
      map.lasso.push([x, y]);
    }
    showTip(-1);
  };
  canvas.addEventListener('pointerup', (event) => {
    if (!pointers.delete(event.pointerId) || pointers.size) return;
    if (!moved) clicked(...placeOfEvent(event));
    else if (map.lasso.length > 2) lassoed();
  });
  canvas.addEventListener('pointercancel', (event) => {
    pointers.delete(event.pointerId);
    map.lasso = [];
    repaint();
  });
  canvas.addEventListener('pointerleave', () => {
    if (!pointers.size) showTip(-1);
  });
  canvas.addEventListener('wheel', (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    zoomAt(Math.exp(-event.deltaY / 300), ...placeOfEvent(event));
  }, { passive: false });
}

function clicked(x, y) {
  const found = near(x, y, CLOSE);
  list(found, 'here');
  if (found.length) showTip(found[0]);
}

function lassoed() {
  const found = map.order.filter((image) => inside(map.places[2 * image], map.places[2 * image + 1], map.lasso));
  list(found.sort((a, b) => a - b), 'inside the line');
}

const WAYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// The nearest point in a direction: within 45 degrees of it, and rather ahead than aside.
function next(from, [dx, dy]) {
  let best = -1;
  let least = Infinity;
  for (let image = 0; image < images.count; image += 1) {
    const x = map.places[2 * image] - map.places[2 * from];
    const y = map.places[2 * image + 1] - map.places[2 * from + 1];
    const ahead = x * dx + y * dy;
    const aside = Math.abs(x * dy - y * dx);
    const cost = ahead + 2 * aside;
    if (ahead > 0.01 && aside <= ahead && cost < least) {
      least = cost;
      best = image;
    }
  }
  return best < 0 ? from : best;
}

function keepInSight(image) {
  const x = map.places[2 * image];
  const y = map.places[2 * image + 1];
  if (x > 8 && y > 8 && x < map.width - 8 && y < map.height - 8) return;
  map.panX += map.width / 2 - x;
  map.panY += map.height / 2 - y;
  map.stale = true;
  place();
}

function goTo(image) {
  keepInSight(image);
  showTip(image);
  sayImage(image);
}

function startKeys() {
  map.canvas.addEventListener('keydown', (event) => {
    const way = WAYS[event.key];
    if (way) {
      event.preventDefault();
      goTo(map.at < 0 ? near(map.width / 2, map.height / 2, Infinity)[0] : next(map.at, way));
    } else if (event.key === 'Enter' && map.at >= 0) {
      event.preventDefault();
      const heading = list(near(map.places[2 * map.at], map.places[2 * map.at + 1], CLOSE), 'here');
      if (heading) heading.focus({ preventScroll: true });
    } else if (event.key === '+' || event.key === '=') zoomStep(1.5);
    else if (event.key === '-') zoomStep(1 / 1.5);
    else if (event.key === '0') seeAll();
    else if (event.key === 'Escape') showTip(-1);
  });
  map.canvas.addEventListener('blur', () => showTip(-1));
}

function zoomStep(factor) {
  const at = map.at >= 0 ? [map.places[2 * map.at], map.places[2 * map.at + 1]] : [map.width / 2, map.height / 2];
  zoomAt(factor, ...at);
  if (map.at >= 0) requestAnimationFrame(() => showTip(map.at));
}

function sampleOf(style) {
  const canvas = make('canvas');
  canvas.width = 32;
  canvas.height = 32;
  const { canvas: stamp } = stampOf(style || GREY, 5, 2);
  canvas.getContext('2d').drawImage(stamp, 16 - stamp.width / 2, 16 - stamp.height / 2);
  return canvas;
}

function drawLegend() {
  const { groups, shown } = map.colouring;
  mapPart('legend').replaceChildren(...shown.map((number) => {
    const group = groups[number];
    const item = make('li');
    const button = make('button');
    button.type = 'button';
    button.setAttribute('aria-pressed', String(Boolean(group.style)));
    const title = group.title.trim() ? group.title : `'${group.title}'`; // a button needs a name
    button.append(sampleOf(group.style), isolated(title));
    button.addEventListener('click', () => {
      toggle(map.colouring, number);
      drawLegend();
      mapPart('legend').children[shown.indexOf(number)].firstChild.focus();
      redraw();
    });
    item.append(button);
    return item;
  }));
}

function press(buttons, chosen) {
  for (const button of buttons) button.setAttribute('aria-pressed', String(button === chosen));
}

function startBar() {
  const choice = mapPart('colours');
  choice.append(...map.colourings.map((colouring) => new Option(colouring.name, colouring.id)));
  choice.addEventListener('change', () => {
    map.colouring = map.colourings.find((colouring) => colouring.id === choice.value);
    drawLegend();
    redraw();
  });
  map.root.addEventListener('click', (event) => {
    const button = event.target.closest('button');
    if (!button) return;
    const { projection, drag, zoom } = button.dataset;
    if (projection) {
      press(map.root.querySelectorAll('[data-projection]'), button);
      map.projection = Number(projection);
      document.getElementById('map-note').textContent = images.projections[map.projection].note;
      showTip(-1);
      seeAll();
    }
    if (drag) {
      press(map.root.querySelectorAll('[data-drag]'), button);
      map.drag = drag;
      map.canvas.dataset.drag = drag;
      map.canvas.dataset.armed = ''; // fingers draw from now on, instead of scrolling the page
    }
    if (zoom === 'reset') seeAll();
    else if (zoom) zoomAt(zoom === 'in' ? 1.5 : 1 / 1.5, map.width / 2, map.height / 2);
  });
}

function startMap() {
  if (!map.root) return;
  map.canvas = map.root.querySelector('canvas');
  map.order = drawingOrder();
  map.colourings = colourings();
  map.colouring = map.colourings[0];
  startBar();
  drawLegend();
  resize();
  paint();
  startPointer();
  startKeys();
  new ResizeObserver(() => {
    resize();
    map.lasso = [];
    paint();
  }).observe(map.canvas);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', redrawMap);
}

function redrawMap() {
  if (!map.root) return;
  drawLegend();
  map.stale = true;
  paint();
}
