// Pictures: from a file to its pixels, upright, as tlpipe's stage "decode" has them.

const BITMAP = {
  colorSpaceConversion: "none",
  premultiplyAlpha: "none",
  imageOrientation: "from-image",
};

/** A reason why one picture, or the classifier, cannot be used, in words for people. */
export class Refusal extends Error {}

/** The file, decoded. */
export async function bitmapOf(file) {
  if (!file.size) throw new Refusal("The file has no bytes.");
  try {
    return await createImageBitmap(file, BITMAP);
  } catch {
    throw new Refusal("This browser cannot read it as a picture.");
  }
}

/** A bitmap as a picture for `preprocess`, over white where it is transparent. */
export function pictureOf(bitmap) {
  let canvas, context;
  const read = (left, top, width, height) => {
    if (!canvas || canvas.width !== width || canvas.height < height) {
      canvas = new OffscreenCanvas(width, height);
      // Kept in memory: a canvas on the GPU need not give back what was drawn.
      context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
      if (!context) throw new Refusal("It is too large for this browser.");
    }
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, left, top, width, height, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  };
  return { width: bitmap.width, height: bitmap.height, read };
}
