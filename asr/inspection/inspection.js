"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const audio = document.getElementById("audio");
const timePlots = [...document.querySelectorAll("#time .plot")];
const rows = [...document.querySelectorAll("[data-token]")];

// The colors of each palette, to read the value of a pixel again.
const indices = {};
for (const [name, colors] of Object.entries(data.colors))
  indices[name] = new Map(colors.map(([r, g, b], i) => [(r << 16) | (g << 8) | b, i]));
const nearest = (colors, r, g, b) => {  // for browsers that change the pixels that a page may read
  let best = 0, least = Infinity;
  colors.forEach((c, i) => {
    const d = (c[0] - r) ** 2 + (c[1] - g) ** 2 + (c[2] - b) ** 2;
    if (d < least) { least = d; best = i; }
  });
  return best;
};
const pixels = new WeakMap();
function value(image, row, column) {
  if (!pixels.has(image) || pixels.get(image).src !== image.src) {
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    pixels.set(image, { src: image.src, ...{ bytes: context.getImageData(0, 0, canvas.width, canvas.height).data } });
  }
  const at = 4 * (row * image.naturalWidth + column), bytes = pixels.get(image).bytes;
  const { low, high, power, colors } = image.dataset;
  const index = indices[colors].get((bytes[at] << 16) | (bytes[at + 1] << 8) | bytes[at + 2])
    ?? nearest(data.colors[colors], bytes[at], bytes[at + 1], bytes[at + 2]);
  return +low + (high - low) * (index / 255) ** power;
}

const seconds = time => `${time.toFixed(2)} s`;
const place = time => `${seconds(data.start + time)}, state ${Math.floor(time / data.state + 1e-9)}, `
  + `frame ${Math.floor(time / data.frame + 1e-9)}`;
const tokenAt = time => data.tokens.findIndex(([, start, end]) => start !== null && start <= time && time < end);
function described(number) {
  const [label, start, end] = data.tokens[number];
  return `token ${number}: “${label}”` + (start === null ? "" : `, ${seconds(start)} to ${seconds(end)}`);
}
function mark(number) {
  for (const each of rows) each.classList.toggle("on", +each.dataset.token === number);
}
const shown = x => x >= 0.001 ? x.toFixed(3) : x.toExponential(1);

function cell(image, event) {  // the row and column of an image under the pointer, or null
  const box = image.getBoundingClientRect();
  const column = Math.floor((event.clientX - box.left) / box.width * image.naturalWidth);
  const row = Math.floor((event.clientY - box.top) / box.height * image.naturalHeight);
  const inside = column >= 0 && row >= 0 && column < image.naturalWidth && row < image.naturalHeight;
  return inside ? { row, column } : null;
}

function read(plot, event, time) {  // the text of the tip, and the token that is marked
  const image = plot.querySelector(".matrix");
  const token = tokenAt(data.start + time);
  const here = [place(time)];
  const at = image && cell(image, event);
  if (!at) return [token < 0 ? here : [...here, described(token)], token];
  const found = value(image, at.row, at.column);
  if (image.dataset.kind === "cross")
    return [[described(at.row), `reads ${place(time)}`, `weight ${shown(found)} (${image.dataset.name})`], at.row];
  if (image.dataset.kind === "posterior")
    return [[`“${data.symbols[image.dataset.number][at.row]}”: ${shown(found)}`, ...here], token];
  const bin = image.naturalHeight - 1 - at.row;
  const hertz = data.frequencies ? `, ${data.frequencies[bin]} Hz` : "";
  return [[...here, `bin ${bin}${hertz}: ${found.toFixed(2)}`, ...(token < 0 ? [] : [described(token)])], token];
}

function show(lines, event) {
  tip.textContent = lines.join("\n");
  tip.hidden = false;
  const box = tip.getBoundingClientRect(), gap = 14;
  const left = event.clientX + gap + box.width > innerWidth ? event.clientX - gap - box.width : event.clientX + gap;
  const top = event.clientY + gap + box.height > innerHeight ? event.clientY - gap - box.height : event.clientY + gap;
  tip.style.left = `${Math.max(0, left)}px`;
  tip.style.top = `${Math.max(0, top)}px`;
}
function line(share) {  // the same time in all panels; none if the share is null
  for (const plot of timePlots)
    plot.style.setProperty("--x", share === null ? "-9px" : `${100 * share}%`);
}
function leave() {
  tip.hidden = true;
  mark(-1);
  line(audio.paused ? null : audio.currentTime / data.seconds);
}
const shareOf = (plot, event) => {
  const box = plot.getBoundingClientRect();
  return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
};
for (const plot of timePlots) {
  plot.addEventListener("pointermove", event => {
    const share = shareOf(plot, event);
    line(share);
    const [lines, token] = read(plot, event, share * data.seconds);
    mark(token);
    show(lines, event);
  });
  plot.addEventListener("pointerleave", leave);
  plot.addEventListener("click", event => {
    audio.currentTime = shareOf(plot, event) * data.seconds;
    audio.play();
  });
}
function follow() {
  if (audio.paused) return;
  if (tip.hidden) line(audio.currentTime / data.seconds);
  requestAnimationFrame(follow);
}
audio.addEventListener("play", follow);
audio.addEventListener("pause", () => { if (tip.hidden) line(null); });
document.getElementById("boxes")?.addEventListener("change", event => {
  document.querySelector("svg.boxes").style.display = event.target.checked ? "" : "none";
});

function choose(section, button) {  // show a head in the large image
  for (const each of section.querySelectorAll(".heads button")) each.classList.toggle("on", each === button);
  const image = button.querySelector(".matrix");
  const copy = image.cloneNode();
  if (section.id === "cross") {
    document.querySelector(".plot.cross .matrix").replaceWith(copy);
    document.getElementById("cross-name").textContent = image.dataset.name;
  } else {
    section.querySelector(".plot.square").replaceChildren(copy);
    document.getElementById("self-name").textContent =
      `${image.dataset.name}, largest weight ${shown(+image.dataset.high)}`;
  }
}
for (const section of document.querySelectorAll("#cross, #self"))
  for (const button of section.querySelectorAll(".heads button"))
    button.addEventListener("click", () => choose(section, button));
const self = document.getElementById("self");
if (self) {
  choose(self, self.querySelector(".heads button"));
  const square = self.querySelector(".plot.square");
  square.addEventListener("pointermove", event => {
    const image = square.querySelector(".matrix"), at = cell(image, event), box = square.getBoundingClientRect();
    if (!at) return;
    square.style.setProperty("--x", `${event.clientX - box.left}px`);
    square.style.setProperty("--y", `${event.clientY - box.top}px`);
    const about = index => {
      const time = (index + 0.5) * image.dataset.seconds, token = tokenAt(data.start + time);
      return `${seconds(data.start + index * image.dataset.seconds)} (state ${index})`
        + (token < 0 ? "" : ` “${data.tokens[token][0]}”`);
    };
    show([`at ${about(at.row)}`, `reads ${about(at.column)}`, `weight ${shown(value(image, at.row, at.column))}`], event);
  });
  square.addEventListener("pointerleave", () => {
    tip.hidden = true;
    for (const name of ["--x", "--y"]) square.style.removeProperty(name);
  });
}
