// The operator page: describe a person or give a picture, look at the ranking. It speaks to the same API as everybody.
// No framework, no build step, no outside request; nothing is kept in the browser but the id of the search in the address.

import { enter, proof } from "/page/door.js";

const API = "/api/v1";
const LIMIT = 60;
const EXAMPLES = [
  "a woman in a blue dress with a red handbag",
  "a man in an orange jacket carrying a white backpack",
  "green cap, black top, green skirt and black boots",
  "somebody in a red and white striped shirt",
];

const $ = (id) => document.getElementById(id);

/** What is being asked and what was answered; the page is drawn from it. */
const state = {
  picture: null, // {file, url} from the user's disk, or {imageId, url} from the gallery
  cameras: new Set(), // ids of the chosen ones
  cameraNames: new Map(),
  search: null, // id of the search on the page
  results: [],
  shown: -1, // index of the result in the viewer
  request: null, // AbortController of the search under way
};

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

// ---------------------------------------------------------------------------------------------------- searching

/** The body of POST /searches for what the form holds, or null when it holds nothing to search for. */
function question() {
  const text = $("text").value.trim();
  if (!text && !state.picture) return null;
  const query = {};
  if (text) query.text = text;
  if (state.picture?.imageId) query.image = { image_id: state.picture.imageId };
  if (text && state.picture) {
    const share = $("weight").valueAsNumber / 100;
    query.weights = { text: share, image: 1 - share };
  }
  const filter = {};
  if (state.cameras.size) filter.camera_id = { in: [...state.cameras] };
  const times = {};
  if ($("from").value) times.gte = new Date($("from").value).toISOString(); // the user's zone -> UTC
  if ($("to").value) times.lte = new Date($("to").value).toISOString();
  if (Object.keys(times).length) filter.captured_at = times;
  return { query, filter, limit: LIMIT };
}

async function search() {
  const body = question();
  if (body === null) return welcome();
  let options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  if (state.picture?.file) {
    const form = new FormData();
    form.append("request", JSON.stringify(body));
    form.append("image", state.picture.file);
    options = { method: "POST", body: form };
  }
  const answer = await ask("/searches", options);
  if (!answer) return;
  show(answer);
  history.pushState(null, "", address());
}

/** One search or stored search; null when it failed (the page then says why) or a later one overtook it. */
async function ask(path, options = {}) {
  state.request?.abort();
  const request = (state.request = new AbortController());
  busy(true);
  try {
    const headers = { ...options.headers, ...proof() };
    const response = await fetch(API + path, { ...options, headers, signal: request.signal });
    if (response.status === 401) {
      await enter(); // the session ended meanwhile
      return ask(path, options);
    }
    const answer = await response.json();
    if (!response.ok) throw new Error(sentence(answer));
    return answer;
  } catch (error) {
    if (error.name === "AbortError") return null;
    fail(error instanceof TypeError ? "The service does not answer. Is it still running?" : error.message);
    return null;
  } finally {
    if (state.request === request) busy(false);
  }
}

function sentence(problem) {
  return problem.errors?.length ? problem.errors.map((error) => error.detail).join(" ") : problem.detail;
}

/** A search of before, by the id in the address: after a reload, or when the user goes back. */
async function restore() {
  const [, id, rank] = location.hash.match(/^#([0-9a-f-]{36})(?:\/(\d+))?$/) ?? [];
  if (!id) return welcome();
  const answer = await ask(`/searches/${id}`);
  if (!answer) return;
  const { query, filter = {} } = answer.request;
  $("text").value = query.text ?? "";
  setPicture(query.image?.image_id ? galleryPicture(query.image.image_id) : null);
  if (query.weights) $("weight").value = (100 * query.weights.text) / (query.weights.text + query.weights.image);
  state.cameras = new Set(filter.camera_id?.in ?? []);
  $("from").value = localTime(filter.captured_at?.gte);
  $("to").value = localTime(filter.captured_at?.lte);
  drawFilters();
  show(answer);
  const index = state.results.findIndex((result) => result.rank === Number(rank));
  if (index >= 0) open(index);
}

/** The address of what the page shows: the search, and the result in the viewer. It says nothing about the person. */
function address(result) {
  return state.search ? `#${state.search}${result ? `/${result.rank}` : ""}` : location.pathname;
}

function localTime(utc) {
  if (!utc) return "";
  const time = new Date(utc);
  return new Date(time - time.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}

let waiting;
/** Search again shortly after the last change, so that dragging the slider is one search, not twenty. */
function searchSoon() {
  drawFilters();
  clearTimeout(waiting);
  waiting = setTimeout(search, 250);
}

// ------------------------------------------------------------------------------------------------------ drawing

function busy(on) {
  $("results").setAttribute("aria-busy", on);
  if (!on) return;
  $("welcome").hidden = true;
  say("Searching …");
  if (!state.results.length) {
    const blank = () => element("li", { className: "placeholder" }, element("div", { className: "frame" }));
    $("grid").replaceChildren(...Array.from({ length: 14 }, blank));
  }
}

function say(text, error = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", error);
}

function welcome() {
  state.results = [];
  state.search = null;
  $("grid").replaceChildren();
  $("notes").replaceChildren();
  say("");
  $("welcome").hidden = false;
}

function fail(text) {
  state.results = [];
  $("grid").replaceChildren();
  $("notes").replaceChildren();
  say(text, true);
}

function show(answer) {
  state.results = answer.results;
  state.search = answer.id;
  $("welcome").hidden = true;
  const { total, ...stages } = answer.took_ms;
  const took = total ?? Object.values(stages).reduce((sum, ms) => sum + ms, 0);
  const parts = [
    `${answer.results.length} of ${answer.candidates.toLocaleString()} images, best first`,
    `${Math.max(1, Math.round(took))} ms`,
  ];
  if (answer.pending) parts.push(`${answer.pending.toLocaleString()} more are not searchable yet`);
  say(parts.join(" · "));
  $("notes").replaceChildren(...answer.warnings.map((warning) => element("li", { textContent: warning })));
  $("grid").style.setProperty("--ratio", usualRatio(answer.results));
  $("grid").replaceChildren(...answer.results.map(card));
  window.scrollTo({ top: 0 });
}

/** Width by height of the middle crop, so that most crops fill their frame and none is cut. */
function usualRatio(results) {
  const ratios = results.map(({ image }) => image.width / image.height).sort((a, b) => a - b);
  return Math.min(0.8, Math.max(0.3, ratios[ratios.length >> 1] ?? 0.375));
}

const cameraName = (id) => state.cameraNames.get(id) ?? id ?? "no camera";

function card(result, index) {
  const { image } = result;
  const picture = element("img", { src: image.thumbnail, alt: "", loading: index < 24 ? "eager" : "lazy", decoding: "async" });
  const node = element(
    "button",
    { type: "button", className: `card ${result.band ?? ""}`, tabIndex: index === 0 ? 0 : -1, onclick: () => open(index) },
    element("span", { className: "frame" }, picture),
    element(
      "span",
      { className: "line" },
      element("span", { className: "rank", textContent: result.rank }),
      element("span", { className: "camera long", textContent: cameraName(image.camera_id), title: cameraName(image.camera_id) }),
    ),
    element(
      "span",
      { className: "line" },
      element("span", { className: "long", textContent: image.captured_at ? shortTime(image.captured_at) : "no time" }),
      element("span", { textContent: result.similarity.toFixed(2), title: "Similarity, 1 is the most" }),
    ),
    element("span", { className: "line band", textContent: result.band ?? "", hidden: !result.band }),
  );
  node.setAttribute("aria-label", spoken(result));
  picture.onerror = () => node.classList.add("gone");
  return element("li", {}, node);
}

function spoken({ rank, similarity, band, image }) {
  const when = image.captured_at ? longTime(image.captured_at) : "time unknown";
  return `Rank ${rank}, ${cameraName(image.camera_id)}, ${when}, similarity ${similarity.toFixed(2)}${band ? `, ${band}` : ""}`;
}

const shortFormat = new Intl.DateTimeFormat(undefined, {
  month: "short",
  day: "numeric",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});
const longFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });
const shortTime = (utc) => shortFormat.format(new Date(utc));
const longTime = (utc) => longFormat.format(new Date(utc));

// ------------------------------------------------------------------------------------------------- one result

function open(index) {
  state.shown = index;
  const result = state.results[index];
  const { image } = result;
  const picture = $("viewer-image");
  picture.src = image.content;
  picture.onerror = () => (picture.src = image.thumbnail); // formats a browser cannot draw, such as TIFF
  picture.alt = spoken(result);
  $("viewer-title").textContent = `Rank ${result.rank}`;
  $("viewer-original").href = image.content;
  const facts = {
    Similarity: result.similarity.toFixed(4) + (result.band ? ` (${result.band})` : ""),
    Camera: image.camera_id && [cameraName(image.camera_id), image.camera_id].filter((name, i, all) => all.indexOf(name) === i).join(" · "),
    Time: image.captured_at && longTime(image.captured_at),
    Tags: image.tags.join(", "),
    Identity: image.identity,
    Track: image.track_id,
    "External id": image.external_id,
    Size: `${image.width} × ${image.height} pixels`,
    "Image id": result.image_id,
  };
  const known = Object.entries(facts).filter(([, value]) => value);
  $("viewer-facts").replaceChildren(
    ...known.map(([name, value]) => element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }))),
  );
  $("previous").disabled = index === 0;
  $("next").disabled = index === state.results.length - 1;
  history.replaceState(null, "", address(result));
  if (!$("viewer").open) $("viewer").showModal();
}

function step(by) {
  const index = state.shown + by;
  if (index >= 0 && index < state.results.length) open(index);
}

function moreLikeThis() {
  const result = state.results[state.shown];
  $("viewer").close();
  $("text").value = "";
  setPicture(galleryPicture(result.image_id));
  search();
}

// ---------------------------------------------------------------------------------------------------- pictures

const galleryPicture = (imageId) => ({ imageId, url: `${API}/images/${imageId}/content?variant=thumb` });

function setPicture(picture) {
  if (state.picture?.file) URL.revokeObjectURL(state.picture.url);
  state.picture = picture;
  $("picture").hidden = picture === null;
  if (picture) $("picture-image").src = picture.url;
  else $("picture-image").removeAttribute("src");
  $("picture-file").value = "";
  drawFilters();
}

/** The first picture among dropped, pasted or chosen files becomes the query. */
function take(files) {
  const file = [...files].find((candidate) => candidate.type.startsWith("image/"));
  if (!file) return fail("That is not a picture. Drop an image file, such as JPEG or PNG.");
  setPicture({ file, url: URL.createObjectURL(file) });
  search();
}

// ----------------------------------------------------------------------------------------------------- filters

async function loadCameras() {
  const response = await fetch(`${API}/cameras`);
  if (!response.ok) return;
  const { cameras } = await response.json();
  cameras.sort((a, b) => (a.site ?? "").localeCompare(b.site ?? "") || a.id.localeCompare(b.id));
  state.cameraNames = new Map(cameras.map((camera) => [camera.id, camera.name ?? camera.id]));
  const chip = (camera) =>
    element("button", {
      type: "button",
      textContent: camera.name ?? camera.id,
      title: [camera.id, camera.site].filter(Boolean).join(", "),
      value: camera.id,
      onclick: () => {
        if (!state.cameras.delete(camera.id)) state.cameras.add(camera.id);
        searchSoon();
      },
    });
  $("cameras").replaceChildren(...cameras.map(chip));
  drawFilters();
}

function drawFilters() {
  for (const chip of $("cameras").children) chip.setAttribute("aria-pressed", state.cameras.has(chip.value));
  const [from, to] = [$("from").value, $("to").value].map((value) => value && shortTime(value));
  $("times").classList.toggle("chosen", Boolean(from || to));
  $("times").firstElementChild.textContent = from && to ? `${from} – ${to}` : from ? `From ${from}` : to ? `Until ${to}` : "Any time";
  $("balance").hidden = !(state.picture && $("text").value.trim());
  $("clear").hidden = !(state.cameras.size || $("from").value || $("to").value);
}

function clearFilters() {
  state.cameras.clear();
  $("from").value = $("to").value = "";
  searchSoon();
}

// ---------------------------------------------------------------------------------------------------- keyboard

/** Arrow keys walk the grid by what is to the left, right, above and below on the screen. */
function walk(event) {
  const cards = [...document.querySelectorAll(".card")];
  const at = cards.indexOf(document.activeElement);
  if (at < 0) return;
  const top = (node) => node.getBoundingClientRect().top;
  const columns = cards.findIndex((node) => top(node) !== top(cards[0]));
  const perRow = columns < 0 ? cards.length : columns;
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perRow, ArrowUp: -perRow }[event.key];
  const to = by === undefined ? { Home: 0, End: cards.length - 1 }[event.key] : at + by;
  if (to === undefined || !cards[to]) return;
  event.preventDefault();
  cards[at].tabIndex = -1;
  cards[to].tabIndex = 0;
  cards[to].focus();
}

function keys(event) {
  if ($("viewer").open) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by) step(by);
    return;
  }
  const typing = event.target.matches("input, textarea");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    $("text").focus();
    $("text").select();
  }
}

// ------------------------------------------------------------------------------------------------------- start

$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  search();
});
$("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  search();
});
$("text").addEventListener("input", drawFilters);
$("weight").addEventListener("input", searchSoon);
for (const id of ["from", "to"]) $(id).addEventListener("change", searchSoon);
$("clear").addEventListener("click", clearFilters);
$("picture-choose").addEventListener("click", () => $("picture-file").click());
$("picture-file").addEventListener("change", (event) => event.target.files.length && take(event.target.files));
$("picture-remove").addEventListener("click", () => {
  setPicture(null);
  search();
});
$("grid").addEventListener("keydown", walk);
$("viewer").addEventListener("click", (event) => event.target === $("viewer") && $("viewer").close());
$("viewer").addEventListener("close", () => {
  history.replaceState(null, "", address());
  document.querySelectorAll(".card")[state.shown]?.focus();
});
$("viewer-close").addEventListener("click", () => $("viewer").close());
$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("more").addEventListener("click", moreLikeThis);
document.addEventListener("keydown", keys);
document.addEventListener("click", (event) => {
  if (!$("times").contains(event.target)) $("times").open = false;
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files);
});

let depth = 0; // dragenter and dragleave fire for every element on the way
const dragsFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragenter", (event) => dragsFiles(event) && ($("drop").hidden = ++depth === 0));
document.addEventListener("dragleave", (event) => dragsFiles(event) && ($("drop").hidden = --depth <= 0));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  $("drop").hidden = true;
  if (dragsFiles(event)) take(event.dataTransfer.files);
});
window.addEventListener("popstate", restore);

$("examples").append(
  ...EXAMPLES.map((text) =>
    element("li", {}, element("button", {
      type: "button",
      textContent: text,
      onclick: () => {
        $("text").value = text;
        search();
      },
    })),
  ),
);
await enter();
await loadCameras();
restore();
