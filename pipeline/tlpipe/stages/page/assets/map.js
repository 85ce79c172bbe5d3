// The map of the embeddings: what is seen of it, and how it is drawn. Its use is in map-use.js.

const map = {
  root: document.querySelector('[data-map]'),
  projection: 0, zoom: 1, panX: 0, panY: 0,
  colourings: [], colouring: null,
  drag: 'lasso', lasso: [], at: -1, listed: new Set(),
  width: 0, height: 0, ratio: 1, places: null,
  layer: document.createElement('canvas'), stale: true, drawing: false,
};

function mapPart(name) {
  return map.root.querySelector(`[data-map-part="${name}"]`);
}

// Points scattered over all classes, so that none lies on top throughout.
function drawingOrder() {
  let step = Math.max(1, Math.floor(images.count * 0.618));
  const common = (a, b) => (b ? common(b, a % b) : a);
  while (common(step, images.count) !== 1) step += 1;
  return Array.from({ length: images.count }, (_, k) => (k * step) % images.count);
}

function boundsOf(points) {
  const bounds = { left: Infinity, right: -Infinity, top: Infinity, bottom: -Infinity };
  for (let k = 0; k < points.length; k += 2) {
    bounds.left = Math.min(bounds.left, points[k]);
    bounds.right = Math.max(bounds.right, points[k]);
    bounds.top = Math.min(bounds.top, points[k + 1]);
    bounds.bottom = Math.max(bounds.bottom, points[k + 1]);
  }
  return bounds;
}

// Places of all points on the canvas, in CSS pixels.
function place() {
  const { points } = images.projections[map.projection];
  const b = boundsOf(points);
  const room = 28;
  const across = (map.width - 2 * room) / Math.max(b.right - b.left, 1);
  const down = (map.height - 2 * room) / Math.max(b.bottom - b.top, 1);
  const scale = Math.max(Math.min(across, down), 1e-6) * map.zoom;
  const x0 = map.width / 2 + map.panX - (scale * (b.left + b.right)) / 2;
  const y0 = map.height / 2 + map.panY - (scale * (b.top + b.bottom)) / 2;
  map.places = new Float32Array(points.length);
  for (let k = 0; k < points.length; k += 2) {
    map.places[k] = x0 + scale * points[k];
    map.places[k + 1] = y0 + scale * points[k + 1];
  }
}

function radius() {
  const base = images.count > 4000 ? 2.6 : images.count > 800 ? 3.4 : 4.4;
  return base * Math.min(1.8, Math.sqrt(Math.sqrt(map.zoom)));
}

function resize() {
  const box = map.canvas.getBoundingClientRect();
  map.width = box.width;
  map.height = box.height;
  map.ratio = Math.min(window.devicePixelRatio || 1, 2);
  map.canvas.width = Math.round(box.width * map.ratio);
  map.canvas.height = Math.round(box.height * map.ratio);
  map.stale = true;
}

// All points, on a layer of their own: it stays as it is while the pointer moves.
function paintPoints(r) {
  map.layer.width = map.canvas.width;
  map.layer.height = map.canvas.height;
  const c = map.layer.getContext('2d');
  c.setTransform(map.ratio, 0, 0, map.ratio, 0, 0);
  const grey = stampOf(GREY, r * 0.8, map.ratio);
  const stamps = map.colouring.groups.map((group) => group.style && stampOf(group.style, r, map.ratio));
  const drawn = map.order.map((image) => [image, map.colouring.groupOf(image)]);
  const stampAt = (image, stamp) => {
    const x = map.places[2 * image];
    const y = map.places[2 * image + 1];
    if (x < -20 || y < -20 || x > map.width + 20 || y > map.height + 20) return;
    c.drawImage(stamp.canvas, x - stamp.half, y - stamp.half, 2 * stamp.half, 2 * stamp.half);
  };
  for (const [image, group] of drawn) if (group < 0 || !stamps[group]) stampAt(image, grey);
  for (const [image, group] of drawn) if (group >= 0 && stamps[group]) stampAt(image, stamps[group]);
}

function paint() {
  map.drawing = false;
  if (!map.width) return;
  const r = radius();
  if (map.stale) {
    place();
    paintPoints(r);
    map.stale = false;
  }
  const c = map.canvas.getContext('2d');
  c.setTransform(1, 0, 0, 1, 0, 0);
  c.clearRect(0, 0, map.canvas.width, map.canvas.height);
  c.drawImage(map.layer, 0, 0);
  c.setTransform(map.ratio, 0, 0, map.ratio, 0, 0);
  paintListed(c, r);
  paintLasso(c);
  if (map.at >= 0) ring(c, map.at, r + 5, 3, 'ink');
  map.canvas.dataset.painted = '';
}

function ring(c, image, r, width, colour) {
  c.beginPath();
  c.arc(map.places[2 * image], map.places[2 * image + 1], r, 0, 7);
  c.lineWidth = width;
  c.strokeStyle = themeColour(colour);
  c.stroke();
}

function paintListed(c, r) {
  if (map.listed.size > 60) return; // rings would hide them, and the line around them says it
  for (const image of map.listed) ring(c, image, r + 1.5, 1.25, 'ink');
}

function paintLasso(c) {
  if (map.lasso.length < 2) return;
  c.beginPath();
  polygon(c, map.lasso);
  c.lineWidth = 6; // a rim, so that the line is seen among points
  c.strokeStyle = themeColour('surface');
  c.stroke();
  c.lineWidth = 2.5;
  c.strokeStyle = themeColour('accent');
  c.setLineDash([8, 4]);
  c.stroke();
  c.setLineDash([]);
  c.globalAlpha = 0.12;
  c.fillStyle = themeColour('accent');
  c.fill();
  c.globalAlpha = 1;
}

// Draws what lies over the points again, before the next frame.
function repaint() {
  if (map.drawing) return;
  map.drawing = true;
  requestAnimationFrame(paint);
}

// Draws the points again as well.
function redraw() {
  map.stale = true;
  repaint();
}

// The images within `most` pixels of a place, the nearest first.
function near(x, y, most) {
  const found = [];
  for (let image = 0; image < images.count; image += 1) {
    const distance = Math.hypot(map.places[2 * image] - x, map.places[2 * image + 1] - y);
    if (distance <= most) found.push([distance, image]);
  }
  return found.sort((a, b) => a[0] - b[0]).map(([, image]) => image);
}

function inside(x, y, corners) {
  let odd = false;
  for (let i = 0, j = corners.length - 1; i < corners.length; j = i, i += 1) {
    const [ax, ay] = corners[i];
    const [bx, by] = corners[j];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}

function zoomAt(factor, x, y) {
  const zoom = Math.min(64, Math.max(0.5, map.zoom * factor));
  const by = zoom / map.zoom;
  map.panX = x - map.width / 2 - by * (x - map.width / 2 - map.panX);
  map.panY = y - map.height / 2 - by * (y - map.height / 2 - map.panY);
  map.zoom = zoom;
  map.lasso = [];
  redraw();
}

function seeAll() {
  map.zoom = 1;
  map.panX = 0;
  map.panY = 0;
  map.lasso = [];
  redraw();
}
