// Makes the picture of an image: a larger one where the page holds it, else a tile of a sheet.

const sheets = [];
let larger = null;
const addresses = new Map();

function addressOf(bytes, type) {
  return URL.createObjectURL(new Blob([bytes], { type }));
}

function sheet(number) {
  if (!sheets[number]) {
    const image = new Image();
    const element = document.getElementById(`sheet-${number}`);
    image.src = addressOf(bytesOf(element.textContent), images.sheets[number].type);
    element.textContent = ''; // the pixels are kept once
    sheets[number] = image.decode().then(() => image);
  }
  return sheets[number];
}

function placeOf(tile) {
  let first = 0;
  for (let number = 0; number < images.sheets.length; number += 1) {
    const { count, columns, px } = images.sheets[number];
    if (tile < first + count) {
      const at = tile - first;
      return { number, px, x: (at % columns) * px, y: Math.floor(at / columns) * px };
    }
    first += count;
  }
  return null;
}

function largerAddress(image) {
  if (!larger) larger = JSON.parse(document.getElementById('larger-data').textContent);
  if (!(image in larger)) return null;
  if (!addresses.has(image)) addresses.set(image, addressOf(bytesOf(larger[image]), 'image/webp'));
  return addresses.get(image);
}

function tileOf(place) {
  const canvas = make('canvas', 'still');
  canvas.width = place.px;
  canvas.height = place.px;
  sheet(place.number).then((whole) => {
    canvas.getContext('2d').drawImage(whole, place.x, place.y, place.px, place.px, 0, 0, place.px, place.px);
    canvas.dataset.drawn = '';
  }, (error) => console.error(`A sheet of pictures cannot be read: ${error}`));
  return canvas;
}

function pictureOf(image) {
  const address = largerAddress(image);
  if (address) {
    const picture = make('img', 'still');
    picture.src = address;
    picture.alt = '';
    picture.decoding = 'async';
    return picture;
  }
  const place = images.tiles[image] < 0 ? null : placeOf(images.tiles[image]);
  return place ? tileOf(place) : make('span', 'still absent', lastPart(images.keys[image]));
}
