// A table of any length: only the rows in sight are in the page. Cells are text, never HTML.

const ROW_HEIGHT = 26;

function element(tag, { text, className, ...attributes } = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// A filter's text as a test of a number: ">10", "<=3", "5..9", "7"; null: not understood.
function numberTest(text) {
  const clean = text.replaceAll("−", "-").replaceAll(" ", "");
  const range = clean.match(/^(-?[\d.]+)\.\.(-?[\d.]+)$/);
  if (range) {
    const [low, high] = [Number(range[1]), Number(range[2])];
    return Number.isFinite(low + high) ? (value) => value >= low && value <= high : null;
  }
  const found = clean.match(/^(<=|>=|<|>|=)?(-?[\d.]+(?:e-?\d+)?)$/i);
  const limit = found ? Number(found[2]) : NaN;
  if (!Number.isFinite(limit)) return null;
  const tests = {
    "<": (value) => value < limit,
    ">": (value) => value > limit,
    "<=": (value) => value <= limit,
    ">=": (value) => value >= limit,
  };
  return tests[found[1]] ?? ((value) => Math.abs(value - limit) < 1e-6 * (1 + Math.abs(limit)));
}

class Table {
  // columns: {title, numeric, value(row), text(row)}; rows: how many there are.
  constructor(host, columns, count, { onPick, onHover, onFilter, isPicked, isSelected }) {
    Object.assign(this, { host, columns, onPick, onHover, onFilter, isPicked, isSelected });
    this.all = Array.from({ length: count }, (_, row) => row);
    this.keep = () => true;
    this.sort = null;
    this.tests = new Map();
    this.scroller = element("div", { className: "rows", tabindex: "0" });
    this.scroller.setAttribute("aria-label", host.getAttribute("aria-label") ?? "table");
    this.table = element("table");
    this.table.append(this.head(), element("tbody"));
    this.space = element("div", { className: "space" });
    this.space.append(this.table);
    this.scroller.append(this.space);
    host.append(this.scroller);
    this.scroller.addEventListener("scroll", () => this.draw());
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    this.arrange();
  }

  head() {
    const head = element("thead");
    const [titles, filters] = [element("tr"), element("tr", { className: "filters" })];
    this.titles = this.columns.map((column) => {
      const cell = element("th", { className: column.numeric ? "number" : "" });
      const button = element("button", { text: column.title, type: "button" });
      button.addEventListener("click", () => this.sortBy(column));
      cell.append(button);
      titles.append(cell);
      if (this.onFilter) filters.append(this.filterOf(column));
      return button;
    });
    head.append(titles);
    if (this.onFilter) head.append(filters);
    return head;
  }

  filterOf(column) {
    const cell = element("th");
    const field = element("input", {
      type: "text",
      placeholder: column.numeric ? ">, <, a..b" : "contains",
      "aria-label": `filter ${column.title}`,
    });
    field.addEventListener("input", () => {
      const text = field.value.trim();
      const wanted = text.toLowerCase();
      const test = column.numeric
        ? numberTest(text)
        : (value) => String(value).toLowerCase().includes(wanted);
      field.setAttribute("aria-invalid", String(Boolean(text) && !test));
      if (text && test) this.tests.set(column, (row) => test(column.value(row)));
      else this.tests.delete(column);
      this.onFilter([...this.tests.values()]);
    });
    cell.append(field);
    return cell;
  }

  clearFilters() {
    this.tests.clear();
    for (const field of this.host.querySelectorAll(".filters input")) {
      field.value = "";
      field.setAttribute("aria-invalid", "false");
    }
    this.onFilter([]);
  }

  // Up, then down, then as in the file.
  sortBy(column, down = null) {
    const same = this.sort?.column === column;
    if (down !== null) this.sort = { column, down };
    else if (!same) this.sort = { column, down: column.numeric };
    else if (this.sort.down === column.numeric) this.sort = { column, down: !this.sort.down };
    else this.sort = null;
    this.titles.forEach((button, place) => {
      const here = this.sort?.column === this.columns[place];
      const order = here ? (this.sort.down ? "descending" : "ascending") : "none";
      button.parentNode.setAttribute("aria-sort", order);
    });
    this.arrange();
  }

  // Which rows, in which order; what has no value comes last.
  arrange() {
    this.order = this.all.filter(this.keep);
    if (this.sort) {
      const { column, down } = this.sort;
      const sign = down ? -1 : 1;
      const compare = column.numeric
        ? (a, b) => Number.isNaN(a) - Number.isNaN(b) || sign * (a - b) || 0
        : (a, b) => sign * (a < b ? -1 : a > b ? 1 : 0);
      this.order.sort((a, b) => compare(column.value(a), column.value(b)));
    }
    this.draw();
  }

  draw() {
    const head = this.table.tHead.offsetHeight;
    const rows = this.order.length;
    const space = `${head + rows * ROW_HEIGHT}px`;
    if (this.space.style.height !== space) this.space.style.height = space;
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW_HEIGHT) - 2);
    const inSight = Math.ceil((this.scroller.clientHeight || 400) / ROW_HEIGHT) + 4;
    const body = element("tbody");
    body.append(element("tr", { style: `height: ${first * ROW_HEIGHT}px` }));
    for (const row of this.order.slice(first, first + inSight)) body.append(this.rowOf(row));
    this.table.tBodies[0].replaceWith(body);
  }

  rowOf(row) {
    const line = element("tr", { "data-row": String(row) });
    if (this.isPicked(row)) line.classList.add("picked");
    if (this.isSelected?.(row)) line.classList.add("selected");
    for (const column of this.columns) {
      const text = column.text(row);
      const cell = element("td", { text, className: column.numeric ? "number" : "words" });
      if (!column.numeric) cell.title = text;
      line.append(cell);
    }
    line.addEventListener("click", () => this.onPick(row));
    line.addEventListener("mouseenter", () => this.onHover?.(row));
    return line;
  }

  reveal(row) {
    const place = this.order.indexOf(row);
    if (place < 0) return;
    const top = place * ROW_HEIGHT;
    const height = this.scroller.clientHeight - this.table.tHead.offsetHeight - ROW_HEIGHT;
    if (top < this.scroller.scrollTop || top > this.scroller.scrollTop + height) {
      this.scroller.scrollTop = Math.max(0, top - height / 2);
    }
    this.draw();
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.target.tagName === "INPUT") return;
    event.preventDefault();
    const now = this.order.findIndex((row) => this.isPicked(row));
    const next = this.order[Math.min(this.order.length - 1, Math.max(0, now + step))];
    if (next !== undefined) this.onPick(next);
  }
}
