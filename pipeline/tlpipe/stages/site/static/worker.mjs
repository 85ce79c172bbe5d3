// The worker: reads pictures and runs the classifier, so that the page stays at hand meanwhile.
//
// Takes {id, file}; gives {kind: "loading" | "ready" | "failed" | "result" | "bad", ...}.

import { bitmapOf, pictureOf, Refusal } from "./picture.mjs";
import { preprocess } from "./preprocess.mjs";

const THUMBNAIL = 192;
const MOST_THREADS = 8;

const here = (name) => new URL(name, import.meta.url).href;

async function fetched(name) {
  // "no-cache" asks the server whether what is kept is still right: the parts must fit together.
  const answer = await fetch(here(name), { cache: "no-cache" }).catch(() => null);
  if (!answer?.ok) {
    const why = answer ? `the server says ${answer.status}` : "the server does not answer";
    throw new Refusal(`${name} could not be fetched: ${why}.`);
  }
  return answer;
}

/** The classifier's bytes, telling how far they have come. */
async function modelBytes(about) {
  const answer = await fetched(about.model);
  const bytes = new Uint8Array(about.model_bytes);
  const wrong = () => new Refusal(`${about.model} is not the file of this page. Load it anew.`);
  const reader = answer.body.getReader();
  let done = 0;
  for (;;) {
    const piece = await reader.read();
    if (piece.done) break;
    if (done + piece.value.length > bytes.length) throw wrong();
    bytes.set(piece.value, done);
    done += piece.value.length;
    postMessage({ kind: "loading", done, total: bytes.length });
  }
  if (done !== bytes.length) throw wrong();
  return bytes;
}

async function opened() {
  const about = await (await fetched("classifier.json")).json();
  const ort = await import(here(`runtime/${about.runtime.module}`));
  ort.env.wasm.wasmPaths = { wasm: here(`runtime/${about.runtime.wasm}`) };
  ort.env.wasm.numThreads = self.crossOriginIsolated
    ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1)
    : 1;
  ort.env.logLevel = "error";
  const bytes = await modelBytes(about);
  try {
    const session = await ort.InferenceSession.create(bytes, {
      executionProviders: ["wasm"],
      // Those that give wrong numbers; tlpipe leaves them out as well.
      extra: { optimization: { disable_specified_optimizers: about.left_out_optimizers.join(";") } },
    });
    return { about, ort, session };
  } catch (error) {
    throw new Refusal(`This browser cannot open the classifier: ${error.message}`);
  }
}

async function thumbnailOf(bitmap) {
  const scale = Math.min(1, THUMBNAIL / Math.max(bitmap.width, bitmap.height));
  return createImageBitmap(bitmap, {
    resizeWidth: Math.max(1, Math.round(bitmap.width * scale)),
    resizeHeight: Math.max(1, Math.round(bitmap.height * scale)),
    resizeQuality: "medium",
  });
}

/** Run the classifier on pixels: its outputs by name, as plain arrays. */
async function outputsOf({ about, ort, session }, pixels) {
  const [height, width] = about.image_size;
  const image = new ort.Tensor("uint8", pixels, [1, height, width, 3]);
  const found = await session.run({ image }, about.outputs);
  const plain = Object.entries(found).map(([name, tensor]) => [name, Array.from(tensor.data)]);
  return Object.fromEntries(plain);
}

async function classified(file) {
  const classifier = await ready;
  const start = performance.now();
  const bitmap = await bitmapOf(file);
  try {
    const { about } = classifier;
    const picture = await pictureOf(bitmap, file);
    const pixels = preprocess(picture, about.image_size, about.preprocess, about.decoder);
    const outputs = await outputsOf(classifier, pixels);
    if (!outputs.probabilities.every(Number.isFinite)) {
      throw new Refusal("The classifier gives no number for it.");
    }
    const ms = performance.now() - start;
    return { outputs, ms, thumbnail: await thumbnailOf(bitmap) };
  } finally {
    bitmap.close();
  }
}

async function answer(id, file) {
  try {
    const { thumbnail, ...said } = await classified(file);
    postMessage({ kind: "result", id, thumbnail, ...said }, [thumbnail]);
  } catch (error) {
    const reason = error instanceof Refusal ? error.message : `It failed: ${error.message}`;
    postMessage({ kind: "bad", id, reason });
  }
}

const ready = opened();
ready.then(
  ({ about }) => postMessage({ kind: "ready", about }),
  (error) => postMessage({ kind: "failed", reason: error.message }),
);

let last = Promise.resolve();
self.onmessage = ({ data: { id, file } }) => {
  last = last.then(() => answer(id, file)); // one after the other: pictures are large
};
