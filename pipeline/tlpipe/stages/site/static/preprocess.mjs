// Preprocess: from a picture of any size to the uint8 pixels that the classifier's graph takes.
//
// The geometry of tlpipe's stage of the same name, in its two ways, by the classifier's decoder.
// Exact: the upright picture is resized as Pillow does it. Fast: the picture as its file stores it
// is resized as fast_image_resize does it, and the small result turned upright; a JPEG is made
// smaller first by averaging, as its decoder does it for tlpipe. The arithmetic (scale, mean, colour
// order) is inside the graph.
//
// A picture is {upright, stored, orientation, reducible}: the two forms as `resample` takes them,
// how one becomes the other (EXIF's number, 1 to 8), and whether tlpipe may decode it smaller.

import { resize } from "./resample.mjs";

const FAST_DECODER = "draft2-fir-1";
const MOST_REDUCED = [8, 4, 2];
const LEFT_OVER = 2; // times the size of the result that a reduced picture has at least
const STRIP_PIXELS = 1 << 22;

/**
 * How the position (x, y) in the stored picture, of width w and height h, follows from the upright
 * (X, Y): whether the axes are exchanged, then whether x is w - x, and y is h - y. By EXIF's number.
 */
export const STORED = {
  1: [false, false, false],
  2: [false, true, false],
  3: [false, true, true],
  4: [false, false, true],
  5: [true, false, false],
  6: [true, false, true],
  7: [true, true, true],
  8: [true, true, false],
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

/** How many times smaller tlpipe decodes a JPEG file: 1, 2, 4 or 8. */
export function reduction(picture, size, spec) {
  if (spec.interpolation === "nearest") return 1; // it picks pixels: of a smaller picture other ones
  const [height, width] = size;
  const ways = [picture, { width: picture.height, height: picture.width }];
  const most = ways.map((way) => {
    const [left, top, right, bottom] = sourceBox(way, size, spec);
    return Math.min((right - left) / width, (bottom - top) / height) / LEFT_OVER;
  });
  return MOST_REDUCED.find((times) => times <= Math.min(...most)) ?? 1;
}

/** A picture some times smaller: each pixel is the mean of a square, or of what is there of it. */
function reduced(picture, times) {
  const read = (left, top, width, height) => {
    const out = new Uint8ClampedArray(width * height * 4);
    const across = Math.min(width * times, picture.width - left * times);
    const most = Math.max(1, Math.floor(STRIP_PIXELS / (across * times)));
    for (let row = 0; row < height; row += most) {
      const rows = Math.min(most, height - row);
      const from = (top + row) * times;
      const down = Math.min(rows * times, picture.height - from);
      const strip = picture.read(left * times, from, across, down);
      averaged(strip, across, down, times, out, row * width * 4);
    }
    return out;
  };
  return {
    width: Math.ceil(picture.width / times),
    height: Math.ceil(picture.height / times),
    read,
  };
}

function averaged(strip, across, down, times, out, outAt) {
  const width = Math.ceil(across / times);
  const sums = new Int32Array(width * 3);
  for (let top = 0; top < down; top += times) {
    const rows = Math.min(times, down - top);
    sums.fill(0);
    for (let y = top; y < top + rows; y++) {
      let at = y * across * 4;
      for (let x = 0; x < across; x++, at += 4) {
        const sum = Math.trunc(x / times) * 3;
        sums[sum] += strip[at];
        sums[sum + 1] += strip[at + 1];
        sums[sum + 2] += strip[at + 2];
      }
    }
    for (let x = 0; x < width; x++, outAt += 4) {
      const count = rows * Math.min(times, across - x * times);
      for (let c = 0; c < 3; c++) out[outAt + c] = Math.floor(sums[x * 3 + c] / count + 0.5);
    }
  }
}

/** A box of the upright picture, in pixels of the stored one. */
function storedBox([left, top, right, bottom], { width, height }, orientation) {
  const [swapped, flipX, flipY] = STORED[orientation];
  if (swapped) [left, top, right, bottom] = [top, left, bottom, right];
  if (flipX) [left, right] = [width - right, width - left];
  if (flipY) [top, bottom] = [height - bottom, height - top];
  return [left, top, right, bottom];
}

/** Pixels of the stored picture, upright, as height x width. */
function turned(pixels, [height, width], orientation) {
  if (orientation === 1) return pixels;
  const [swapped, flipX, flipY] = STORED[orientation];
  const [storedWidth, storedHeight] = swapped ? [height, width] : [width, height];
  const out = new Uint8Array(pixels.length);
  let to = 0;
  for (let down = 0; down < height; down++) {
    for (let across = 0; across < width; across++) {
      let [x, y] = swapped ? [down, across] : [across, down];
      if (flipX) x = storedWidth - 1 - x;
      if (flipY) y = storedHeight - 1 - y;
      const from = (y * storedWidth + x) * 3;
      for (let c = 0; c < 3; c++) out[to++] = pixels[from + c];
    }
  }
  return out;
}

/**
 * Crop and resize as the classifier's metadata say.
 *
 * `size` is the height and width of the result; `decoder` the classifier's. Gives height x width x 3
 * bytes, RGB.
 */
export function preprocess(picture, size, spec, decoder) {
  const { upright, stored, orientation, reducible } = picture;
  const box = sourceBox(upright, size, spec);
  if (decoder !== FAST_DECODER) return resize(upright, size, box, spec.interpolation, false);
  const times = reducible ? reduction(stored, size, spec) : 1;
  const part = storedBox(box, stored, orientation).map((edge) => edge / times);
  const from = times === 1 ? stored : reduced(stored, times);
  const [height, width] = size;
  const storedSize = STORED[orientation][0] ? [width, height] : [height, width];
  return turned(resize(from, storedSize, part, spec.interpolation, true), size, orientation);
}
