// Preprocess: from a picture of any size to the uint8 pixels that the classifier's graph takes.
//
// The geometry of tlpipe's stage of the same name: the box of the picture that the result shows,
// and Pillow's resampling of it with its fixed-point arithmetic, so that the pixels are those of
// Pillow's, bit for bit. The arithmetic (scale, mean, colour order) is inside the graph.
//
// A picture is {width, height, read(left, top, width, height)}; `read` gives RGBA bytes of a part
// of it. No more than one strip of a picture is asked for at once.

const STRIP_PIXELS = 1 << 22;
const PRECISION_BITS = 22; // of a weight, as in Pillow: 32 less 8 of the pixel and 2 of overshoot

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

/** Round to the nearest whole number, halves to the even one, as Python does. */
function roundHalfEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}

/**
 * Part of the picture that the result shows: left, top, right, bottom, in its pixels.
 * `size` is the height and width of the result; `spec` is the classifier's `preprocess`.
 */
export function sourceBox(picture, size, spec) {
  const [height, width] = size;
  const short = Math.min(picture.width, picture.height);
  if (spec.crop === "centre-fraction") {
    const side = spec.crop_fraction * short;
    const left = (picture.width - side) / 2;
    const top = (picture.height - side) / 2;
    return [left, top, picture.width - left, picture.height - top];
  }
  if (spec.crop === "none") return [0, 0, picture.width, picture.height];
  const across = Math.max(spec.size, Math.trunc((spec.size * picture.width) / short));
  const down = Math.max(spec.size, Math.trunc((spec.size * picture.height) / short));
  const xScale = picture.width / across;
  const yScale = picture.height / down;
  const left = roundHalfEven((across - width) / 2);
  const top = roundHalfEven((down - height) / 2);
  const right = Math.min((left + width) * xScale, picture.width);
  const bottom = Math.min((top + height) * yScale, picture.height);
  return [left * xScale, top * yScale, right, bottom];
}

/** For each pixel of the result along one side: where its taps begin, how many, their weights. */
function tapsOf(length, start, stop, count, [reach, filter]) {
  [start, stop] = [Math.fround(start), Math.fround(stop)]; // Pillow keeps a box in single precision
  const scale = Math.fround(stop - start) / count;
  const widened = Math.max(scale, 1);
  const support = reach * widened;
  const most = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(count);
  const number = new Int32Array(count);
  const weights = new Int32Array(count * most);
  for (let i = 0; i < count; i++) {
    const centre = start + (i + 0.5) * scale;
    const from = Math.max(0, Math.trunc(centre - support + 0.5));
    const until = Math.min(length, Math.trunc(centre + support + 0.5));
    const values = [];
    let total = 0;
    for (let x = from; x < until; x++) {
      const value = filter((x - centre + 0.5) * (1 / widened));
      values.push(value);
      total += value;
    }
    values.forEach((value, k) => {
      const scaled = (total === 0 ? value : value / total) * 2 ** PRECISION_BITS;
      weights[i * most + k] = Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    first[i] = from;
    number[i] = values.length;
  }
  return { first, number, weights, most, count };
}

const clamped = (sum) => {
  const value = sum >> PRECISION_BITS;
  return value < 0 ? 0 : value > 255 ? 255 : value;
};

/** Resample rows of RGBA, of a strip that begins at column `left`, into rows of RGB. */
function across(strip, stripWidth, rows, left, taps, out, outAt) {
  const half = 1 << (PRECISION_BITS - 1);
  const { first, number, weights, most, count } = taps;
  for (let y = 0; y < rows; y++) {
    const row = y * stripWidth * 4;
    for (let i = 0; i < count; i++) {
      let at = row + (first[i] - left) * 4;
      let red = half, green = half, blue = half;
      for (let k = i * most, end = k + number[i]; k < end; k++, at += 4) {
        const weight = weights[k];
        red += strip[at] * weight;
        green += strip[at + 1] * weight;
        blue += strip[at + 2] * weight;
      }
      out[outAt++] = clamped(red);
      out[outAt++] = clamped(green);
      out[outAt++] = clamped(blue);
    }
  }
}

/** Resample the columns of rows of `width` bytes, the first of which is row `top`. */
function down(rows, width, top, taps) {
  const half = 1 << (PRECISION_BITS - 1);
  const out = new Uint8Array(taps.count * width);
  const sums = new Int32Array(width);
  for (let i = 0; i < taps.count; i++) {
    sums.fill(half);
    for (let k = 0; k < taps.number[i]; k++) {
      const weight = taps.weights[i * taps.most + k];
      const row = (taps.first[i] + k - top) * width;
      for (let x = 0; x < width; x++) sums[x] += rows[row + x] * weight;
    }
    for (let x = 0; x < width; x++) out[i * width + x] = clamped(sums[x]);
  }
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

function nearest(picture, size, [left, top, right, bottom]) {
  const [height, width] = size;
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
 * Crop and resize as the classifier's metadata say.
 *
 * `size` is the height and width of the result. Gives height x width x 3 bytes, RGB.
 */
export function preprocess(picture, size, spec) {
  const [height, width] = size;
  const box = sourceBox(picture, size, spec);
  if (spec.interpolation === "nearest") return nearest(picture, size, box);
  const filter = FILTERS[spec.interpolation];
  if (!filter) throw new Error(`This page knows no interpolation "${spec.interpolation}".`);
  const [left, top, right, bottom] = box;
  const columns = tapsOf(picture.width, left, right, width, filter);
  const rows = tapsOf(picture.height, top, bottom, height, filter);
  const from = columns.first[0];
  const stripWidth = columns.first[width - 1] + columns.number[width - 1] - from;
  const firstRow = rows.first[0];
  const stop = rows.first[height - 1] + rows.number[height - 1];
  const narrow = new Uint8Array((stop - firstRow) * width * 3);
  const most = Math.max(1, Math.floor(STRIP_PIXELS / stripWidth));
  for (let row = firstRow; row < stop; row += most) {
    const count = Math.min(most, stop - row);
    const strip = picture.read(from, row, stripWidth, count);
    across(strip, stripWidth, count, from, columns, narrow, (row - firstRow) * width * 3);
  }
  return down(narrow, width * 3, firstRow, rows);
}
