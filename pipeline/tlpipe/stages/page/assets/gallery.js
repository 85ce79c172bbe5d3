// Lists of images: those that the page came with, and panels that other parts fill.

const PAGE = 48;

function shotOf(image) {
  const item = make('li', 'shot');
  const button = make('button', 'picture');
  button.type = 'button';
  button.dataset.image = image;
  button.setAttribute('aria-label', `Show ${lastPart(images.keys[image])} with its nearest training images`);
  button.append(pictureOf(image));
  const key = make('p', 'key');
  const name = isolated(lastPart(images.keys[image]));
  name.title = images.keys[image];
  key.append(name);
  item.append(button, key, saidOf(image));
  return item;
}

function saidOf(image) {
  const said = make('p', 'said');
  const label = names(images.labels[image]);
  said.append(label ? isolated(label, 'label') : make('span', 'none', 'no label'));
  const guess = names(images.guesses[image]);
  const sure = make('span', 'sure', percent(images.confidences[image]));
  if (guess && hasBoth(image) && !isWrong(image)) {
    said.append(make('span', 'unseen', ', told rightly,'), ' ', sure);
  } else if (guess) {
    const arrow = make('span', 'arrow');
    const drawn = make('span', '', ' → ');
    drawn.setAttribute('aria-hidden', 'true');
    arrow.append(drawn, make('span', 'unseen', ' taken for '));
    said.append(arrow, isolated(guess, hasBoth(image) && isWrong(image) ? 'guess wrong' : 'guess'), ' ');
    said.append(sure);
  }
  return said;
}

function moreOf(next, left) {
  const said = `Show ${next.toLocaleString('en')} more`;
  return left > next ? `${said} of ${left.toLocaleString('en')}` : said;
}

// Fills a panel with a heading, a note and the images, and calls `closed` when it is closed.
function showPanel(panel, title, note, found, closed) {
  const head = make('div', 'panel-head');
  const heading = make('h3', '', title);
  heading.tabIndex = -1;
  const close = make('button', 'quiet', 'Close');
  close.type = 'button';
  close.addEventListener('click', () => {
    panel.hidden = true;
    panel.replaceChildren();
    if (closed) closed();
  });
  head.append(heading, close);
  const list = make('ul', 'shots');
  panel.replaceChildren(head, make('p', 'panel-note', note), list);
  panel.hidden = false;
  let shown = 0;
  const more = make('button', 'more');
  more.type = 'button';
  const add = () => {
    const next = found.slice(shown, shown + PAGE).map(shotOf);
    list.append(...next);
    shown += next.length;
    const left = found.length - shown;
    more.textContent = moreOf(Math.min(left, PAGE), left);
    more.hidden = left === 0;
    return next[0];
  };
  more.addEventListener('click', () => {
    const first = add();
    if (first) first.querySelector('button').focus();
  });
  add();
  panel.append(more);
  return heading;
}

// Scrolls so far that a panel's first pictures are seen, and what it was opened from still is.
function reveal(panel) {
  const missing = panel.getBoundingClientRect().top + Math.min(320, panel.offsetHeight) - window.innerHeight;
  if (missing > 0) window.scrollBy({ top: missing });
}

// Lists of the page itself: pictures, and a button where they are long.
function fill(list) {
  for (const button of list.querySelectorAll('.picture:empty')) {
    if (!button.closest('[hidden]')) button.append(pictureOf(Number(button.dataset.image)));
  }
}

function shorten(list) {
  const step = Number(list.dataset.list);
  const items = Array.from(list.children);
  if (items.length <= step) return;
  let shown = step;
  for (const item of items.slice(step)) item.hidden = true;
  const more = make('button', 'more');
  more.type = 'button';
  const say = () => {
    more.textContent = moreOf(Math.min(step, items.length - shown), items.length - shown);
    more.hidden = shown >= items.length;
  };
  more.addEventListener('click', () => {
    for (const item of items.slice(shown, shown + step)) item.hidden = false;
    const first = items[shown].querySelector('button');
    shown += step;
    fill(list);
    say();
    first.focus();
  });
  say();
  list.after(more);
}

function startLists() {
  for (const list of document.querySelectorAll('[data-list]')) shorten(list);
}

function fillLists() {
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) {
        fill(entry.target);
        seen.unobserve(entry.target);
      }
    }
  }, { rootMargin: '800px' });
  for (const list of document.querySelectorAll('[data-list]')) seen.observe(list);
}

function startFinding() {
  const form = document.querySelector('[data-find]');
  if (!form) return;
  const panel = document.getElementById('find-panel');
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    const wanted = form.querySelector('input').value.trim().toLowerCase();
    const found = [];
    images.keys.forEach((key, image) => {
      if (key.toLowerCase().includes(wanted)) found.push(image);
    });
    const title = wanted ? `${counted(found.length, 'image')} with “${wanted}” in the name` : counted(found.length, 'image');
    showPanel(panel, title, 'Choose one to see its nearest training images.', found, () => form.querySelector('input').focus()).focus({ preventScroll: true });
    reveal(panel);
  });
}
