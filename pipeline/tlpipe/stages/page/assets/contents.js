// Marks, in the table of contents, the section that is being read.

function startContents() {
  const links = new Map();
  for (const link of document.querySelectorAll('.contents a')) links.set(link.hash.slice(1), link);
  const visible = new Set();
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) visible.add(entry.target.id);
      else visible.delete(entry.target.id);
    }
    let marked = false;
    for (const [id, link] of links) {
      if (visible.has(id) && !marked) {
        link.setAttribute('aria-current', 'true');
        marked = true;
      } else link.removeAttribute('aria-current');
    }
  }, { rootMargin: '-10% 0px -60%' });
  for (const section of document.querySelectorAll('main section')) seen.observe(section);
}
