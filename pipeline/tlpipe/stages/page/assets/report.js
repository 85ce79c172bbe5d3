// Starts the parts of a report once the page has been painted.

const forPrint = []; // what is opened to be printed, and closed again

function beforePrint() {
  document.documentElement.classList.add('printing');
  for (const item of document.querySelectorAll('[data-list] > [hidden]')) {
    item.hidden = false;
    forPrint.push(() => { item.hidden = true; });
  }
  for (const list of document.querySelectorAll('[data-list]')) fill(list);
  for (const element of document.querySelectorAll('details:not([open])')) {
    element.open = true;
    forPrint.push(() => { element.open = false; });
  }
  redrawMap();
}

function afterPrint() {
  document.documentElement.classList.remove('printing');
  for (const undo of forPrint.splice(0)) undo();
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
