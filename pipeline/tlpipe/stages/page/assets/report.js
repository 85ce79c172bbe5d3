// Starts the parts of a report once the page has been painted.

function beforePrint() {
  document.documentElement.classList.add('printing');
  for (const item of document.querySelectorAll('[data-list] > [hidden]')) item.hidden = false;
  for (const list of document.querySelectorAll('[data-list]')) fill(list);
  for (const element of document.querySelectorAll('details')) element.open = true;
  for (const button of document.querySelectorAll('[data-list] + .more')) button.hidden = true;
  redrawMap();
}

function afterPrint() {
  document.documentElement.classList.remove('printing');
  redrawMap();
}

function startReport() {
  startTables();
  startMatrix();
  startDetail();
  startFinding();
  startMap();
  startContents();
  fillLists();
  window.addEventListener('beforeprint', beforePrint);
  window.addEventListener('afterprint', afterPrint);
  document.documentElement.dataset.ready = '';
}

startLists();
requestAnimationFrame(() => setTimeout(startReport));
