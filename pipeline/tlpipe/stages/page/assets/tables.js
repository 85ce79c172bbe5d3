// Sorts tables by the column whose name is chosen; what has no value comes last.

function compare(a, b, kind) {
  if (kind === 'text') return a.localeCompare(b, 'en', { numeric: true });
  return Number(a) - Number(b);
}

function sortBy(table, header, kind) {
  const rising = header.getAttribute('aria-sort') === 'ascending';
  const fresh = !header.hasAttribute('aria-sort');
  const up = fresh ? kind === 'text' : !rising; // of numbers, the greatest are wanted first
  for (const other of table.querySelectorAll('th[aria-sort]')) other.removeAttribute('aria-sort');
  header.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  const place = header.cellIndex;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => ({ row, value: row.cells[place].dataset.value }));
  rows.sort((a, b) => {
    if (a.value === '' || b.value === '') return (a.value === '') - (b.value === '');
    return up ? compare(a.value, b.value, kind) : compare(b.value, a.value, kind);
  });
  body.append(...rows.map(({ row }) => row));
}

function startTables() {
  for (const button of document.querySelectorAll('[data-sort]')) {
    button.addEventListener('click', () => sortBy(button.closest('table'), button.closest('th'), button.dataset.sort));
  }
}
