// The page: takes pictures from people, hands them to the worker, shows what it answers.

import { element, percent, said, showAnswer, showReason, waitingRow } from "./answer.mjs";

const MOST_BYTES = 256 * 2 ** 20;
const MOST_PIXELS = 100e6;
const LONGEST = 32767; // pixels of a side: what every browser's canvas can do

const by = (id) => document.getElementById(id);
const [input, drop, status, loading] = ["files", "drop", "status", "loading"].map(by);
const [answers, rows, clear, facts] = ["answers", "rows", "clear", "facts"].map(by);

const pictures = new Map(); // by id: {name, row}
let about = null;
let lastId = 0;
let given = 0; // since the list was last cleared
let done = 0;

const say = (text) => (status.textContent = text);

function began() {
  // A worker from a blob has this page's Content-Security-Policy; one from an address has none.
  const code = `import ${JSON.stringify(new URL("worker.mjs", import.meta.url).href)};`;
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const worker = new Worker(address, { type: "module" });
  worker.onmessage = ({ data }) => heard[data.kind](data);
  worker.onerror = (event) => {
    event.preventDefault();
    heard.failed({ reason: `The program stopped: ${event.message || "it could not be loaded"}.` });
  };
  return worker;
}

const heard = {
  loading({ done: bytes, total }) {
    loading.hidden = false;
    loading.max = total;
    loading.value = bytes;
    const megabytes = (n) => (n / 1e6).toFixed(1);
    if (bytes === total) say("Preparing the classifier.");
    else loading.title = `${megabytes(bytes)} of ${megabytes(total)} MB`;
  },
  ready({ about: found }) {
    about = found;
    loading.hidden = true;
    describe();
    if (given === done) say("Ready.");
  },
  failed({ reason }) {
    loading.hidden = true;
    input.disabled = true;
    document.body.classList.add("failed");
    for (const id of [...pictures.keys()]) refuse(id, "The classifier could not be loaded.");
    status.setAttribute("role", "alert");
    say(reason);
  },
  result({ id, ...result }) {
    const picture = pictures.get(id);
    if (!picture) return; // cleared meanwhile
    pictures.delete(id);
    showAnswer(picture.row, picture.name, about, result);
    finished(`${picture.name}: ${said(about, result.outputs).short}.`);
  },
  bad({ id, reason }) {
    refuse(id, reason);
  },
};

function refuse(id, reason) {
  const picture = pictures.get(id);
  if (!picture) return;
  pictures.delete(id);
  showReason(picture.row, picture.name, reason);
  finished(`${picture.name} was not classified. ${reason}`);
}

function finished(text) {
  done += 1;
  say(given === 1 ? text : `${done} of ${given} pictures. ${text}`);
}

/** Width and height, without decoding all of it; null where the browser cannot tell. */
function sizeOf(file) {
  return new Promise((resolve) => {
    const image = new Image();
    const address = URL.createObjectURL(file);
    const end = (size) => {
      URL.revokeObjectURL(address);
      resolve(size);
    };
    image.onload = () => end([image.naturalWidth, image.naturalHeight]);
    image.onerror = () => end(null);
    image.src = address;
  });
}

/** Why a file is not even handed to the worker; "" where it is. */
async function refusal(file) {
  if (file.size > MOST_BYTES) {
    return `The file has ${(file.size / 1e6).toFixed(0)} MB; the limit is 268 MB.`;
  }
  const size = file.size ? await sizeOf(file) : null;
  if (size === null) return ""; // the worker says what is wrong with it
  const [width, height] = size;
  if (width * height > MOST_PIXELS || Math.max(width, height) > LONGEST) {
    return (
      `It has ${width} x ${height} pixels; the limits are ${MOST_PIXELS / 1e6} million, and` +
      ` ${LONGEST} a side.`
    );
  }
  return "";
}

async function take(files) {
  if (input.disabled) return;
  const taken = [...files].map((file) => {
    const id = (lastId += 1);
    const row = waitingRow(file.name);
    rows.append(row);
    pictures.set(id, { name: file.name, row });
    return [id, file];
  });
  if (!taken.length) {
    say("There was no picture in it.");
    return;
  }
  given += taken.length;
  answers.hidden = false;
  say(`Classifying ${taken.length === 1 ? taken[0][1].name : `${taken.length} pictures`}.`);
  for (const [id, file] of taken) {
    const reason = await refusal(file);
    if (reason) refuse(id, reason);
    else if (pictures.has(id)) worker.postMessage({ id, file });
  }
}

function describe() {
  const list = (name, ...values) =>
    facts.append(element("dt", name), ...values.map((value) => element("dd", value)));
  by("about").hidden = false;
  const count = about.classes.length.toLocaleString("en");
  by("about-title").textContent = `About the classifier (${count} classes)`;
  list("Classes", about.classes.join(", "));
  list("Backbone", `${about.backbone}, trained at precision ${about.precision}`);
  if (about.unknown) {
    const rate = percent(about.unknown.false_alarms);
    list("None of the classes", `Wrongly said of ${rate} of pictures like those of training.`);
  }
  if (about.sets) {
    const coverage = percent(about.sets.coverage);
    list("It may be", `These lists hold the right class of ${coverage} of such pictures.`);
  }
  list("Made", `${about.created_at}, by tlpipe ${about.tlpipe_version}`);
  list("Runs on", `ONNX Runtime Web ${about.runtime.version}`);
}

input.addEventListener("change", () => {
  take(input.files);
  input.value = ""; // so that the same picture can be chosen again
});
document.addEventListener("paste", (event) => take(event.clipboardData?.files ?? []));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
document.addEventListener("dragleave", () => drop.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take(event.dataTransfer?.files ?? []);
});
clear.addEventListener("click", () => {
  pictures.clear();
  rows.replaceChildren();
  answers.hidden = true;
  given = done = 0;
  say("Ready.");
  input.focus();
});

say("Loading the classifier.");
input.disabled = false;
const worker = began();
