// Resampling: a box of a picture, to a height and width.
//
// Two ways, each with the fixed-point arithmetic of its library, so that the pixels are tlpipe's,
// bit for bit: Pillow's, across and then down, and that of fast_image_resize, down and then across,
// with weights of 16 bits.
//
// A picture is {width, height, read(left, top, width, height)}; `read` gives RGBA bytes of a part
// of it. No more than one strip of a picture is asked for at once.

const STRIP_PIXELS = 1 << 22;
const PILLOW_BITS = 22; // of a weight: 32 less 8 of the pixel and 2 of overshoot
const FAST_FILTERS = ["bilinear", "bicubic", "lanczos"]; // the others are Pillow's in both ways

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

const cubic = (x) => {
  const a = -0.5;
  const at = Math.abs(x);
  if (at < 1) return ((a + 2) * at - (a + 3)) * at * at + 1;
  return at < 2 ? (((at - 5) * at + 8) * at - 4) * a : 0;
};

// How far a filter reaches, and its value.
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, cubic],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

/** For each pixel of the result along one side: where its taps begin, how many, their weights. */
function tapsOf(length, start, span, count, [reach, filter]) {
  const scale = span / count;
  const widened = Math.max(scale, 1);
  const support = reach * widened;
  const taps = [];
  for (let i = 0; i < count; i++) {
    const centre = start + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const until = Math.min(length, Math.trunc(centre + support + 0.5));
    const values = [];
    for (let x = first; x < until; x++) values.push(filter((x - centre + 0.5) * (1 / widened)));
    const total = values.reduce((sum, value) => sum + value, 0) || 1;
    taps.push({ first, values: values.map((value) => value / total) });
  }
  return taps;
}

/** As many bits for weights as 16 hold, with their sign. */
function bitsOf(taps) {
  const greatest = Math.max(...taps.map(({ values }) => Math.max(...values)));
  let bits = 0;
  while (bits < PILLOW_BITS - 1 && Math.round(greatest * 2 ** (bits + 1)) < 1 << 15) bits++;
  return bits;
}

/** The same with whole numbers for weights, in arrays. */
function wholeTaps(taps, bits) {
  const most = Math.max(...taps.map(({ values }) => values.length));
  const weights = new Int32Array(taps.length * most);
  taps.forEach(({ values }, i) =>
    values.forEach((value, k) => {
      const scaled = value * 2 ** bits;
      weights[i * most + k] = Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    }),
  );
  const first = Int32Array.from(taps, (tap) => tap.first);
  const number = Int32Array.from(taps, (tap) => tap.values.length);
  const last = taps.length - 1;
  return {
    first,
    number,
    weights,
    most,
    bits,
    count: taps.length,
    start: first[0],
    length: first[last] + number[last] - first[0],
  };
}

/** Rows and columns of `from`, which has `stride` bytes a pixel: each row becomes narrower. */
function across(from, rows, stride, taps, to, toAt) {
  const { first, number, weights, most, count, start, length, bits } = taps;
  const half = 1 << (bits - 1);
  for (let y = 0; y < rows; y++) {
    for (let i = 0; i < count; i++) {
      let at = (y * length + first[i] - start) * stride;
      let [red, green, blue] = [half, half, half];
      for (let k = i * most, end = k + number[i]; k < end; k++, at += stride) {
        const weight = weights[k];
        red += from[at] * weight;
        green += from[at + 1] * weight;
        blue += from[at + 2] * weight;
      }
      to[toAt++] = clamped(red >> bits);
      to[toAt++] = clamped(green >> bits);
      to[toAt++] = clamped(blue >> bits);
    }
  }
}

/** Columns of `from` become shorter; they are put into `to`, from its column `left` on. */
function down(from, columns, stride, taps, to, left, toColumns) {
  const { first, number, weights, most, count, start, bits } = taps;
  const sums = new Int32Array(columns * stride);
  for (let i = 0; i < count; i++) {
    sums.fill(1 << (bits - 1));
    for (let k = 0; k < number[i]; k++) {
      const weight = weights[i * most + k];
      const row = (first[i] + k - start) * sums.length;
      for (let x = 0; x < sums.length; x++) sums[x] += from[row + x] * weight;
    }
    let at = (i * toColumns + left) * 3;
    for (let x = 0; x < sums.length; x += stride) {
      to[at++] = clamped(sums[x] >> bits);
      to[at++] = clamped(sums[x + 1] >> bits);
      to[at++] = clamped(sums[x + 2] >> bits);
    }
  }
}

const clamped = (value) => (value < 0 ? 0 : value > 255 ? 255 : value);

/** Call `use` with stretches of `length`, so that each has `across` times as many pixels at most. */
function stretches(length, across, use) {
  const most = Math.max(1, Math.floor(STRIP_PIXELS / across));
  for (let at = 0; at < length; at += most) use(at, Math.min(most, length - at));
}

/** Pillow's way: across, strip by strip, and then down. */
function acrossAndDown(picture, columns, rows) {
  const narrow = new Uint8Array(rows.length * columns.count * 3);
  stretches(rows.length, columns.length, (at, count) => {
    const strip = picture.read(columns.start, rows.start + at, columns.length, count);
    across(strip, count, 4, columns, narrow, at * columns.count * 3);
  });
  const out = new Uint8Array(rows.count * columns.count * 3);
  down(narrow, columns.count, 3, rows, out, 0, columns.count);
  return out;
}

/** The way of fast_image_resize: down, strip by strip, and then across. */
function downAndAcross(picture, columns, rows) {
  const low = new Uint8Array(rows.count * columns.length * 3);
  stretches(columns.length, rows.length, (at, count) => {
    const strip = picture.read(columns.start + at, rows.start, count, rows.length);
    down(strip, count, 4, rows, low, at, columns.length);
  });
  const out = new Uint8Array(rows.count * columns.count * 3);
  across(low, rows.count, 3, columns, out, 0);
  return out;
}

/** Positions of the pixels that "nearest" picks along one side. */
function picked(length, start, stop, count) {
  const step = Math.fround(Math.fround(stop) - Math.fround(start)) / count;
  const found = new Int32Array(count);
  let at = Math.fround(start) + step * 0.5;
  for (let i = 0; i < count; i++, at += step) {
    found[i] = Math.min(length - 1, Math.trunc(at));
  }
  return found;
}

function nearest(picture, [height, width], [left, top, right, bottom]) {
  const columns = picked(picture.width, left, right, width);
  const rows = picked(picture.height, top, bottom, height);
  const [from, until] = [columns[0], columns[width - 1] + 1];
  const out = new Uint8Array(height * width * 3);
  let at = 0;
  rows.forEach((row) => {
    const strip = picture.read(from, row, until - from, 1);
    columns.forEach((column) => {
      for (let c = 0; c < 3; c++) out[at++] = strip[(column - from) * 4 + c];
    });
  });
  return out;
}

/**
 * Resize a box (left, top, right, bottom) of a picture.
 *
 * `size` is the height and width of the result; `fast` chooses the way. Gives height x width x 3
 * bytes, RGB.
 */
export function resize(picture, size, box, interpolation, fast) {
  const [height, width] = size;
  if (interpolation === "nearest") return nearest(picture, size, box);
  const filter = FILTERS[interpolation];
  if (!filter) throw new Error(`This page knows no interpolation "${interpolation}".`);
  const isFast = fast && FAST_FILTERS.includes(interpolation);
  const kept = isFast ? (value) => value : Math.fround; // Pillow keeps a box in single precision
  const [left, top, right, bottom] = box.map(kept);
  const columns = tapsOf(picture.width, left, kept(right - left), width, filter);
  const rows = tapsOf(picture.height, top, kept(bottom - top), height, filter);
  if (isFast) {
    return downAndAcross(
      picture, wholeTaps(columns, bitsOf(columns)), wholeTaps(rows, bitsOf(rows)),
    );
  }
  return acrossAndDown(picture, wholeTaps(columns, PILLOW_BITS), wholeTaps(rows, PILLOW_BITS));
}
