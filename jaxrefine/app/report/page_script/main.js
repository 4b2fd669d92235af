// Puts the page together.

const keys = { shift: false };
for (const kind of ["keydown", "keyup", "pointerdown", "pointerup"]) {
  window.addEventListener(kind, (event) => (keys.shift = event.shiftKey), true);
}

function particleTable(store) {
  const words = (title, of) => ({ title, numeric: false, value: of, text: of });
  const label = (row) => store.label(row);
  const first = store.labels
    ? { title: "particle", numeric: true, value: (row) => store.labels[row], text: label }
    : words("particle", label);
  const numbers = [...store.columns.values()].map((column) => ({
    title: column.title + (column.unit ? ` (${column.unit})` : ""),
    numeric: true,
    value: (row) => column.values[row],
    text: (row) => store.text(column.name, row),
  }));
  const columns = [
    first,
    ...numbers.slice(0, 3),
    words("status", store.status.of),
    ...(store.reference ? [words("reference", store.reference.of)] : []),
    ...numbers.slice(3),
    words("micrograph", store.micrograph.of),
  ];
  const table = new Table(document.getElementById("particle-table"), columns, store.count, {
    onPick: (row) => store.pick(row),
    onHover: (row) => store.hover(row),
    onFilter: (tests) => store.show(tests),
    isPicked: (row) => row === store.picked,
    isSelected: (row) => store.selected[row] === 1,
  });
  const only = document.getElementById("only-selected");
  const keep = () => {
    table.keep = (row) => store.shown[row] && (!only.checked || store.selected[row]);
    table.arrange();
  };
  only.addEventListener("change", keep);
  store.on((changes) => {
    if (changes.has("shown") || (changes.has("selected") && only.checked)) keep();
    else if (changes.has("selected")) table.draw();
    if (changes.has("picked")) table.reveal(store.picked);
  });
  return table;
}

function csvCell(text) {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function save(store) {
  const rows = store.rowsWhere((row) => store.selected[row]);
  const kind = store.page.index;
  const header = kind === "row" ? "row" : "particle_index";
  const repeated = kind === "repeated"; // the micrograph tells them apart
  const line = (row) =>
    [store.label(row), ...(repeated ? [store.micrograph.of(row)] : [])].map(csvCell).join(",");
  const lines = [header + (repeated ? ",micrograph_path" : ""), ...rows.map(line)];
  const file = new Blob([lines.join("\n"), "\n"], { type: "text/csv" });
  const link = element("a", { download: `${store.page.stem}_selection.csv` });
  link.href = URL.createObjectURL(file);
  link.click();
  URL.revokeObjectURL(link.href);
}

function buttons(store, table) {
  const on = (id, action) => document.getElementById(id).addEventListener("click", action);
  on("select-shown", () => store.select(store.rowsWhere((row) => store.shown[row])));
  on("select-others", () =>
    store.select(store.rowsWhere((row) => store.shown[row] && !store.selected[row])));
  on("clear", () => {
    store.select([]);
    store.pick(-1);
  });
  on("clear-filters", () => table.clearFilters());
  on("export", () => save(store));
  const count = () => {
    const sum = (flags) => flags.reduce((total, flag) => total + flag, 0);
    const [shown, selected] = [sum(store.shown), sum(store.selected)];
    const text = (number) => number.toLocaleString("en");
    document.getElementById("counts").textContent =
      `${text(selected)} selected · ${text(shown)} of ${text(store.count)} shown`;
    document.getElementById("export").disabled = !selected;
  };
  store.on(count);
}

function histogramChoice(store, histogram) {
  const choice = document.getElementById("histogram-of");
  for (const column of store.columns.values()) {
    choice.append(element("option", { value: column.name, text: column.title }));
  }
  choice.addEventListener("change", () => histogram.choose(choice.value));
}

// A page of a running job comes again, unless somebody works in it.
function comeAgain(store, seconds) {
  setInterval(() => {
    if (!store.touched && !document.hidden) location.reload();
  }, 1000 * seconds);
}

// On a touch screen, a finger on a plot scrolls the page unless a tool was chosen.
function freeForScrolling(view) {
  for (const tool of view.model.toolbar.tools) if (tool.active) tool.active = false;
}

async function start() {
  const touched = matchMedia("(pointer: coarse)").matches;
  document.documentElement.classList.add("scripted");
  const page = read("page-data");
  const store = new Store(page);
  const table = particleTable(store);
  const detail = new Detail(store, read("particle-images"));
  const micrographs = new Micrographs(store, read("thumbnails"));
  buttons(store, table);
  for (const spec of read("plots")) {
    const host = document.getElementById(`plot-${spec.id}`);
    const wanted = [spec.x, spec.y].every((name) => !name || store.columns.has(name));
    if (!wanted || (spec.kind === "histogram" && !store.columns.has("z"))) {
      host.closest(".plot").remove();
      continue;
    }
    const [view] = await Bokeh.embed.embed_item(spec.item, host.id);
    if (touched) freeForScrolling(view);
    if (spec.kind === "histogram") histogramChoice(store, new Histogram(store, view, spec));
    else if (spec.kind === "map") micrographs.attach(new Scatter(store, view, spec));
    else new Scatter(store, view, spec);
  }
  detail.show(-1);
  store.changed("start");
  if (page.renewed_s) comeAgain(store, page.renewed_s);
  document.documentElement.dataset.ready = "yes"; // for the test
}

start();
