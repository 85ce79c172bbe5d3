// What a JPEG file says at its beginning: how it lies, and how many colours it has.

const ORIENTATION = 0x0112; // EXIF tag 274
const BEGINNING = 1 << 20; // bytes within which a file says it
// Source: ITU-T T.81, table B.1: markers that begin a frame, and those without a length.
const isFrame = (marker) => marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
const isBare = (marker) => marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8);

/** EXIF's orientation, 1 to 8; 1 where a block does not tell. `view` begins with "Exif". */
function orientationOf(view) {
  if (view.byteLength < 14 || view.getUint32(0) !== 0x45786966) return 1;
  const little = view.getUint16(6) === 0x4949;
  const table = 6 + view.getUint32(10, little);
  const count = view.getUint16(table, little);
  for (let i = 0; i < count; i++) {
    const entry = table + 2 + i * 12;
    if (view.getUint16(entry, little) === ORIENTATION) {
      const value = view.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  }
  return 1;
}

/** {orientation, components} of a JPEG file; null of another one, or where it does not tell. */
export async function jpegFacts(file) {
  const view = new DataView(await file.slice(0, BEGINNING).arrayBuffer());
  try {
    if (view.getUint16(0) !== 0xffd8) return null;
    let orientation = 1;
    for (let at = 2; ; ) {
      if (view.getUint8(at) !== 0xff) return null;
      const marker = view.getUint8(at + 1);
      if (marker === 0xff) at += 1; // filling
      else if (isBare(marker)) at += 2;
      else {
        const length = view.getUint16(at + 2);
        if (isFrame(marker)) return { orientation, components: view.getUint8(at + 9) };
        if (marker === 0xe1 && orientation === 1) {
          orientation = orientationIn(view, at + 4, length - 2);
        }
        at += 2 + length;
      }
    }
  } catch (error) {
    if (error instanceof RangeError) return null; // it ends before it tells
    throw error;
  }
}

function orientationIn(view, start, length) {
  try {
    return orientationOf(new DataView(view.buffer, start, length));
  } catch (error) {
    if (error instanceof RangeError) return 1; // a damaged block leaves the pixels as good
    throw error;
  }
}
