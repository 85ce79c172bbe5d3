// Reads the columns of the images from the data element.

const ARRAYS = { i2: Int16Array, i4: Int32Array, u1: Uint8Array, u2: Uint16Array, f4: Float32Array };

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function column(type, base64) {
  return new ARRAYS[type](bytesOf(base64).buffer);
}

function numbers(packed) {
  return column(packed.type, packed.data);
}

function lists(packed) {
  const flat = numbers(packed.of);
  let at = 0;
  return Array.from(numbers(packed.lengths), (length) => {
    at += length;
    return flat.subarray(at - length, at);
  });
}

function readImages() {
  const packed = JSON.parse(document.getElementById('images-data').textContent);
  const splits = numbers(packed.splits.of);
  return {
    count: packed.count,
    classes: packed.classes,
    highlighted: packed.highlighted,
    keys: packed.keys,
    labels: lists(packed.labels),
    guesses: lists(packed.guesses),
    splits: Array.from(splits, (number) => packed.splits.names[number]),
    judged: column('u1', packed.judged),
    confidences: column('f4', packed.confidences),
    own: column('f4', packed.own),
    neighbours: numbers(packed.neighbours),
    each: packed.neighbours.each,
    tiles: numbers(packed.tiles),
    sheets: packed.sheets,
    projections: packed.projections.map((p) => ({ note: p.note, points: column('u2', p.points) })),
  };
}

const images = readImages();

function names(classes) {
  return Array.from(classes, (number) => images.classes[number]).join(', ');
}

function isWrong(image) {
  const label = images.labels[image];
  const guess = images.guesses[image];
  if (label.length !== guess.length) return true;
  return label.some((number) => !guess.includes(number));
}

function hasBoth(image) {
  return images.labels[image].length > 0 && images.guesses[image].length > 0;
}

function neighboursOf(image) {
  const row = images.neighbours.subarray(image * images.each, (image + 1) * images.each);
  return Array.from(row).filter((other) => other >= 0);
}
