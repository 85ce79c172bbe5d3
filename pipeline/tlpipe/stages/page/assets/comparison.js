// Starts the parts of a comparison.

startTables();
startContents();
document.documentElement.dataset.ready = '';
