// The dialog of one image: a larger picture, what is known of it, and its nearest training images.

const detail = { dialog: document.getElementById('detail'), trail: [], opener: null };

function part(name) {
  return detail.dialog.querySelector(`[data-detail="${name}"]`);
}

function fact(list, term, value) {
  if (!value) return;
  const pair = make('div');
  const said = make('dd');
  said.append(isolated(value));
  pair.append(make('dt', '', term), said);
  list.append(pair);
}

function facts(image) {
  const list = detail.dialog.querySelector('.detail-facts');
  list.replaceChildren();
  const sure = percent(images.confidences[image]);
  const guess = names(images.guesses[image]);
  const own = percent(images.own[image]);
  fact(list, 'File', images.keys[image]);
  fact(list, 'Label', names(images.labels[image]) || 'none');
  fact(list, 'Guess', guess && (sure ? `${guess} (${sure})` : guess));
  fact(list, 'Probability of the label', own);
  fact(list, 'Split', images.splits[image]);
  if (hasBoth(image)) fact(list, 'The guess is', isWrong(image) ? 'wrong' : 'right');
}

function draw() {
  const image = detail.trail[detail.trail.length - 1];
  const title = detail.dialog.querySelector('#detail-title');
  title.replaceChildren(isolated(lastPart(images.keys[image])));
  detail.dialog.querySelector('.detail-picture').replaceChildren(pictureOf(image));
  facts(image);
  const near = neighboursOf(image);
  part('neighbours').replaceChildren(...near.map(shotOf));
  part('none').hidden = near.length > 0;
  part('back').hidden = detail.trail.length < 2;
  detail.dialog.dataset.image = image;
  detail.dialog.scrollTop = 0;
  title.focus();
}

function back() {
  detail.trail.pop();
  if (detail.trail.length) draw();
  else detail.dialog.close();
}

function openDetail(image, opener) {
  if (detail.dialog.open) {
    detail.trail.push(image);
  } else {
    detail.trail = [image];
    detail.opener = opener;
    detail.dialog.showModal();
  }
  draw();
}

function startDetail() {
  document.addEventListener('click', (event) => {
    const button = event.target.closest('.picture[data-image]');
    if (button) openDetail(Number(button.dataset.image), button);
  });
  part('close').addEventListener('click', () => detail.dialog.close());
  part('back').addEventListener('click', back);
  detail.dialog.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    event.preventDefault(); // one step back, not all the way out
    back();
  });
  detail.dialog.addEventListener('click', (event) => {
    if (event.target === detail.dialog) detail.dialog.close(); // beside the dialog
  });
  detail.dialog.addEventListener('close', () => {
    if (detail.opener && detail.opener.isConnected) detail.opener.focus();
  });
}
