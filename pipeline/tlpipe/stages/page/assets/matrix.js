// Cells of the confusion matrix, and pairs of confused classes: each lists its images.

function imagesOf(label, guess) {
  const found = [];
  for (let image = 0; image < images.count; image += 1) {
    if (images.judged[image] && images.labels[image][0] === label && images.guesses[image][0] === guess) found.push(image);
  }
  return found.sort((a, b) => images.confidences[b] - images.confidences[a]);
}

function startMatrix() {
  const section = document.querySelector('[data-confusion]');
  if (!section) return;
  const panel = document.getElementById('confusion-panel');
  let opened = null;
  section.addEventListener('click', (event) => {
    const button = event.target.closest('[data-guess]');
    if (!button) return;
    if (opened) opened.removeAttribute('aria-expanded');
    opened = button;
    button.setAttribute('aria-expanded', 'true');
    const label = Number(button.dataset.true);
    const guess = Number(button.dataset.guess);
    const count = Number(button.dataset.count);
    const found = imagesOf(label, guess);
    const what = label === guess ? `of ${images.classes[label]}, and taken for it` : `of ${images.classes[label]}, taken for ${images.classes[guess]}`;
    const title = `${counted(count, 'image')} ${what}`;
    const most = 'The most confident guesses come first.';
    const note = found.length < count ? `This page holds a sample, and ${found.length.toLocaleString('en')} of them. ${most}` : most;
    const heading = showPanel(panel, title, note, found, () => {
      button.removeAttribute('aria-expanded');
      button.focus();
    });
    heading.focus({ preventScroll: true });
    reveal(panel);
  });
}
