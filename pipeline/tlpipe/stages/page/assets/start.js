// What every script of the page uses: elements without markup from data, and numbers as words.

function make(name, kind, text) {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  if (text !== undefined) element.textContent = text;
  return element;
}

function isolated(text, kind) {
  return make('bdi', kind, text); // names of any writing direction
}

function counted(number, noun) {
  return `${number.toLocaleString('en')} ${noun}${number === 1 ? '' : 's'}`;
}

function percent(value) {
  if (!Number.isFinite(value)) return '';
  const of100 = 100 * value;
  if (of100 >= 99.95 && of100 < 100) return '>99.9\u00a0%';
  const places = (of100 > 99 && of100 < 100) || (of100 > 0 && of100 < 1) ? 1 : 0;
  return `${of100.toFixed(places)}\u00a0%`;
}

function lastPart(key) {
  return key.split(/[\\/]/).filter(Boolean).pop() || key;
}
