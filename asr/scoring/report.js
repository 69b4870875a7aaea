const body = document.querySelector(".utterances tbody");
const rows = [...body.rows];
const value = (row, key) => key === "id" ? row.cells[0].textContent : Number(row.dataset[key]);

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), key = button.dataset.key;
    const now = head.getAttribute("aria-sort");
    const up = now ? now === "descending" : key === "id";  // numbers: the highest first
    for (const other of document.querySelectorAll("th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const keyed = rows.map(row => [value(row, key), row]);
    keyed.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1));
    body.append(...keyed.map(pair => pair[1]));
  });
}

let exact = false;  // a link of a confusion was followed: upper and lower case differ
const find = document.querySelector("#find"), wrong = document.querySelector("#wrong");
const filter = () => {
  const fold = text => exact ? text : text.toLowerCase();
  const sought = fold(find.value);
  let shown = 0;
  for (const row of rows) {
    // A confusion counts errors of the first system only.
    const text = exact ? row.querySelector(".a").textContent
      : row.cells[0].textContent + " " + row.lastElementChild.textContent;
    row.hidden = (wrong.checked && row.dataset.errors === "0") || !fold(text).includes(sought);
    shown += !row.hidden;
  }
  document.querySelector("#shown").textContent = `${shown} of ${rows.length}`;
};
find.addEventListener("input", () => { exact = false; filter(); });
for (const link of document.querySelectorAll("a[data-find]")) {
  link.addEventListener("click", () => {  // the link itself goes to the utterances
    find.value = link.dataset.find;
    exact = true;
    filter();
  });
}
wrong.addEventListener("change", filter);
filter();

const player = new Audio();  // one player for all rows: thousands would be slow
let playing = null;
const stop = () => { if (playing) playing.textContent = "\u25b6"; playing = null; };
player.addEventListener("ended", stop);
player.addEventListener("pause", stop);
body.addEventListener("click", event => {
  const button = event.target.closest(".play");
  if (!button) return;
  const again = playing === button;
  player.pause();
  stop();
  if (again) return;
  playing = button;
  button.textContent = "\u25a0";
  player.src = button.dataset.audio;
  player.play().catch(error => {  // AbortError: it was paused for another
    if (error.name !== "AbortError") button.textContent = "\u25b6 cannot be played";
  });
});
