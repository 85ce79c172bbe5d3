// Pictures: from a file to its pixels, as tlpipe's stage "decode" has them.

import { jpegFacts } from "./jpeg.mjs";
import { STORED } from "./preprocess.mjs";

const BITMAP = {
  colorSpaceConversion: "none",
  premultiplyAlpha: "none",
  imageOrientation: "from-image",
};

/** A reason why one picture, or the classifier, cannot be used, in words for people. */
export class Refusal extends Error {}

/** The file, decoded and upright; whoever gets it closes it. */
export async function bitmapOf(file) {
  if (!file.size) throw new Refusal("The file has no bytes.");
  try {
    return await createImageBitmap(file, BITMAP);
  } catch {
    throw new Refusal("This browser cannot read it as a picture.");
  }
}

/** Function that reads parts of what `draw` draws, over white where it is transparent. */
function reader(draw) {
  let canvas, context;
  return (left, top, width, height) => {
    if (!canvas || canvas.width !== width || canvas.height < height) {
      canvas = new OffscreenCanvas(width, height);
      // Kept in memory: a canvas on the GPU need not give back what was drawn.
      context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
      if (!context) throw new Refusal("It is too large for this browser.");
      context.imageSmoothingEnabled = false;
    }
    context.resetTransform();
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    draw(context, left, top, width, height);
    return context.getImageData(0, 0, width, height).data;
  };
}

/** A bitmap as a picture for `preprocess`; `file` is what it was made of. */
export async function pictureOf(bitmap, file) {
  const upright = {
    width: bitmap.width,
    height: bitmap.height,
    read: reader((context, left, top, width, height) =>
      context.drawImage(bitmap, left, top, width, height, 0, 0, width, height),
    ),
  };
  const facts = await jpegFacts(file);
  const orientation = facts?.orientation ?? 1;
  const reducible = facts !== null && facts.components !== 4; // CMYK is decoded as it is
  if (orientation === 1) return { upright, stored: upright, orientation, reducible };
  return { upright, stored: storedOf(bitmap, orientation), orientation, reducible };
}

/** The picture as its file stores it: the bitmap, turned back. */
function storedOf(bitmap, orientation) {
  const [swapped, flipX, flipY] = STORED[orientation];
  const [width, height] = swapped
    ? [bitmap.height, bitmap.width]
    : [bitmap.width, bitmap.height];
  const [right, down] = [flipX ? -1 : 1, flipY ? -1 : 1];
  const read = reader((context, left, top) => {
    const at = [(flipX ? width : 0) - left, (flipY ? height : 0) - top];
    if (swapped) context.setTransform(0, down, right, 0, ...at);
    else context.setTransform(right, 0, 0, down, ...at);
    context.drawImage(bitmap, 0, 0);
  });
  return { width, height, read };
}
