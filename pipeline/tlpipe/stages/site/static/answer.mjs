// Answers: what the classifier's outputs say, in words and in elements.
//
// Names of classes and files come from outside: they are only ever set as text.

const AT_ONCE = 5; // classes that are shown at once
const MOST = 200; // classes that are listed at all

/** An element with text or other elements in it. */
export function element(name, inside = [], attributes = {}) {
  const made = document.createElement(name);
  made.append(...[inside].flat());
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export function percent(share) {
  const text = (100 * share).toFixed(1);
  if (share > 0 && text === "0.0") return "< 0.1 %";
  if (share < 1 && text === "100.0") return "> 99.9 %";
  return `${text} %`;
}

/** Numbers of the classes, the most probable first; equal ones keep their order. */
function ordered(probabilities) {
  return probabilities.map((_, k) => k).sort((a, b) => probabilities[b] - probabilities[a]);
}

/** What is said of a picture: a headline, further sentences, and which classes are marked. */
export function said(about, outputs) {
  const order = ordered(outputs.probabilities);
  const named = (flags) => order.filter((k) => flags[k]).map((k) => about.classes[k]);
  const notes = [];
  let headline, short;
  if (outputs.labels) {
    const labels = named(outputs.labels);
    headline = labels.length ? labels.join(", ") : "No label";
    short = headline;
  } else {
    headline = about.classes[order[0]];
    short = `${headline}, ${percent(outputs.probabilities[order[0]])}`;
  }
  const unknown = outputs.unknown ? Boolean(outputs.unknown[0]) : null;
  if (unknown) {
    notes.push(`If it were one of the classes: ${short}.`);
    headline = short = "None of the classes";
  }
  if (unknown !== null) {
    const score = outputs.unknown_score[0].toFixed(2);
    notes.push(`Distance from the classes: ${score} (limit ${about.unknown.threshold.toFixed(2)}).`);
  }
  if (outputs.prediction_set) {
    const set = named(outputs.prediction_set).join(", ");
    notes.push(`${unknown ? "Of the classes, it" : "It"} may be: ${set}.`);
  }
  return { headline, short, notes, order, unknown };
}

function classRow(about, outputs, k) {
  const share = outputs.probabilities[k];
  const given = outputs.labels ? Boolean(outputs.labels[k]) : false;
  const name = element("th", about.classes[k], { scope: "row" });
  const fill = element("span", [], { class: "fill" });
  fill.style.width = `${100 * share}%`;
  const bar = element("td", element("span", fill, { class: "track" }), { "aria-hidden": "true" });
  const number = element("td", element("data", percent(share), { value: share.toFixed(6) }));
  const cells = [name, bar, number];
  if (outputs.labels) {
    const limit = `from ${percent(about.thresholds[k])}`;
    cells.push(element("td", given ? `given, ${limit}` : limit, { class: "limit" }));
  }
  return element("tr", cells, given ? { class: "given" } : {});
}

function classTable(about, outputs, order, label) {
  const rows = order.map((k) => classRow(about, outputs, k));
  return element("table", element("tbody", rows), { "aria-label": label });
}

/** Put an answer into a picture's row. */
export function showAnswer(row, name, about, { outputs, thumbnail, ms }) {
  const { headline, notes, order, unknown } = said(about, outputs);
  const text = element("div", [], { class: "text" });
  text.append(
    element("h3", headline, { class: "headline" }),
    element("p", name, { class: "name" }),
    ...notes.map((note) => element("p", note, { class: "note" })),
    classTable(about, outputs, order.slice(0, AT_ONCE), `Probabilities, ${name}`),
  );
  const rest = order.slice(AT_ONCE, MOST);
  if (rest.length) {
    const what = `${rest.length.toLocaleString("en")} more ${rest.length === 1 ? "class" : "classes"}`;
    const more = element("details", element("summary", what));
    more.append(classTable(about, outputs, rest, `Lesser probabilities, ${name}`));
    text.append(more);
  }
  const canvas = element("canvas", [], { class: "thumbnail", "aria-hidden": "true" });
  [canvas.width, canvas.height] = [thumbnail.width, thumbnail.height];
  canvas.getContext("bitmaprenderer").transferFromImageBitmap(thumbnail);
  row.replaceChildren(canvas, text);
  row.className = unknown ? "unknown" : "done";
  row.dataset.ms = ms.toFixed(1);
}

/** Put the reason into the row of a picture that cannot be read. */
export function showReason(row, name, reason) {
  const mark = element("span", "!", { class: "thumbnail mark", "aria-hidden": "true" });
  const text = element("div", [
    element("h3", "Not classified", { class: "headline" }),
    element("p", name, { class: "name" }),
    element("p", reason, { class: "note" }),
  ]);
  text.className = "text";
  row.replaceChildren(mark, text);
  row.className = "bad";
}

/** The row of a picture that waits for its turn. */
export function waitingRow(name) {
  const mark = element("span", [], { class: "thumbnail", "aria-hidden": "true" });
  const text = element("div", [element("p", name, { class: "name" }), element("p", "Waiting")]);
  text.className = "text";
  return element("li", [mark, text], { class: "waiting" });
}
