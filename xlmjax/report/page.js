"use strict";
// Charts are drawn when they come near the window, in the colours of the reader's theme.

const hidden = new Set();  // indices of runs that are switched off
const drawn = [];          // Bokeh figures
let tapped;                // element that a finger was on last

function shortNumber(value, digits) {
  const size = Math.abs(value);
  for (const [unit, one, from] of [["T", 1e12, 1e12], ["B", 1e9, 1e9], ["M", 1e6, 1e6], ["k", 1e3, 1e4]])
    if (size >= from) return Number((value / one).toPrecision(digits)) + unit;
  return size >= 1e3 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(digits)));
}

function percent(value, digits) {
  return Number.isFinite(value) ? Number((100 * value).toPrecision(digits)) + " %" : "not known";
}

async function unpack(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function runOf(model) {
  const tag = model.tags.find(tag => tag.startsWith("run-"));
  return tag === undefined ? undefined : Number(tag.slice(4));
}

function paint(figure) {
  const style = getComputedStyle(document.documentElement);
  const color = name => style.getPropertyValue(`--${name}`).trim();
  for (const axis of [...figure.left, ...figure.below])
    axis.setv({major_label_text_color: color("soft"), axis_line_color: color("planned"),
      major_tick_line_color: axis.major_tick_line_color === null ? null : color("planned")});
  for (const grid of figure.center)
    if (grid.grid_line_color !== null) grid.grid_line_color = color("grid");
  for (const renderer of figure.renderers) {
    const run = runOf(renderer);
    const own = {value: color(run === undefined ? renderer.tags[0] : `run-${run % 6}`)};
    renderer.glyph.line_color = own;
    if ("fill_color" in renderer.glyph) renderer.glyph.fill_color = own;
    if (run !== undefined) renderer.visible = !hidden.has(run);
  }
}

// A drawing's template has `["@n"]` where its n-th column belongs.
async function draw(place, {templates, columns, charts}) {
  const [template, chosen] = charts[Number(place.id.slice("chart-".length))];
  const text = templates[template].replace(/\["@(\d+)"\]/g, (_, n) => columns[chosen[n]]);
  const views = await Bokeh.embed.embed_item(JSON.parse(text), place.id);
  for (const {model} of views) {
    if (model.type !== "Figure") continue;
    paint(model);
    drawn.push(model);
  }
}

function toggle(button) {
  const run = Number(button.dataset.run);
  if (!hidden.delete(run)) hidden.add(run);
  button.setAttribute("aria-pressed", String(!hidden.has(run)));
  for (const part of document.querySelectorAll(`main .run-${run}`))
    part.classList.toggle("hidden-run", hidden.has(run));
  drawn.forEach(paint);
}

// Bokeh shows values under a mouse only; a tap counts as a mouse that came there, and stays.
function tap(event) {
  if (event.pointerType !== "touch") return;
  const {clientX, clientY} = event;
  const at = {view: window, clientX, clientY, isPrimary: true, bubbles: true, composed: true};
  tapped?.dispatchEvent(new PointerEvent("pointerout", at));
  tapped = event.composedPath()[0];
  tapped.dispatchEvent(new PointerEvent("pointermove", at));
}

async function start() {
  const [code, text] = await Promise.all([unpack("bokeh"), unpack("drawings")]);
  const drawings = JSON.parse(text);
  const script = document.createElement("script");
  script.textContent = code;
  document.head.append(script);
  const near = new IntersectionObserver(async entries => {
    const places = entries.filter(entry => entry.isIntersecting).map(entry => entry.target);
    places.forEach(place => near.unobserve(place));
    places.forEach(place => place.addEventListener("click", tap));
    await Promise.all(places.map(place => draw(place, drawings)));
    document.body.dataset.ready = "yes";
  }, {rootMargin: "600px"});
  document.querySelectorAll(".chart").forEach(place => near.observe(place));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawn.forEach(paint));
  for (const button of document.querySelectorAll("#switches button"))
    button.addEventListener("click", () => toggle(button));
}

start();
