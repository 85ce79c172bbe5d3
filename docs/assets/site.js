// Two things that the theme leaves out for keyboards and screen readers: a name for the search, and
// tables that scroll sideways by the arrow keys.
document$.subscribe(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  const reach = () =>
    document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])").forEach((table) => {
      table.tabIndex = 0;
    });
  reach();
  new MutationObserver(reach).observe(document.querySelector("article"), {
    childList: true,
    subtree: true,
  });
});
