// The particles: columns, what is selected, shown by the filters, and looked at.

const read = (id) => JSON.parse(document.getElementById(id).textContent);

function bytesOf(text) {
  const raw = atob(text);
  const found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found;
}

function columnOf(packed) {
  const buffer = bytesOf(packed.data).buffer;
  const whole = packed.bytes === 2 ? new Int16Array(buffer) : new Int32Array(buffer);
  const nothing = packed.bytes === 2 ? -32768 : -2147483648;
  const values = new Float32Array(whole.length);
  for (let i = 0; i < whole.length; i++) {
    values[i] = whole[i] === nothing ? NaN : (whole[i] + packed.middle) * packed.step;
  }
  return { ...packed, data: null, values };
}

function wordsOf(packed) {
  const buffer = bytesOf(packed.data).buffer;
  const number = packed.bytes === 2 ? new Uint16Array(buffer) : new Uint32Array(buffer);
  return { words: packed.words, number, of: (row) => packed.words[number[row]] };
}

// With a typographic minus, and no minus before zero.
function fixed(value, digits) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? text.replace("-", "") : text.replace("-", "−");
}

class Store {
  constructor(page) {
    this.page = page;
    this.count = page.count;
    this.columns = new Map(page.columns.map((packed) => [packed.name, columnOf(packed)]));
    this.micrograph = wordsOf(page.words.micrograph);
    this.status = wordsOf(page.words.status);
    this.reference = page.words.reference ? wordsOf(page.words.reference) : null;
    this.concerned = bytesOf(page.concerned);
    this.labels = page.label.data ? new Int32Array(bytesOf(page.label.data).buffer) : null;
    this.selected = new Uint8Array(this.count);
    this.shown = new Uint8Array(this.count).fill(1);
    this.picked = -1;
    this.hovered = -1;
    this.touched = false; // whether somebody works in the page
    this.listeners = [];
    this.waiting = new Set();
  }

  label(row) {
    if (this.labels) return String(this.labels[row]);
    return this.page.label.texts ? this.page.label.texts[row] : String(row);
  }

  isConcerned(row) {
    return (this.concerned[row >> 3] >> (row & 7)) & 1;
  }

  values(name) {
    return this.columns.get(name)?.values ?? null;
  }

  text(name, row) {
    const column = this.columns.get(name);
    const value = column.values[row];
    if (!Number.isFinite(value)) return "—";
    return fixed(value, column.digits);
  }

  // With its unit; degrees follow without a space.
  textWithUnit(name, row) {
    const text = this.text(name, row);
    const { unit } = this.columns.get(name);
    return text === "—" || !unit ? text : text + (unit === "°" ? unit : ` ${unit}`);
  }

  rowsWhere(test) {
    const found = [];
    for (let row = 0; row < this.count; row++) if (test(row)) found.push(row);
    return found;
  }

  select(rows, add = false) {
    if (!add) this.selected.fill(0);
    for (const row of rows) this.selected[row] = 1;
    this.changed("selected");
  }

  show(tests) {
    for (let row = 0; row < this.count; row++) {
      this.shown[row] = tests.every((test) => test(row)) ? 1 : 0;
    }
    this.changed("shown");
  }

  pick(row) {
    this.picked = row;
    this.changed("picked");
  }

  hover(row) {
    if (row === this.hovered) return;
    this.hovered = row;
    this.changed("hovered");
  }

  on(listener) {
    this.listeners.push(listener);
  }

  // Listeners are called once before the next picture, with all that has changed.
  changed(what) {
    if (what !== "hovered" && what !== "start") this.touched = true;
    if (!this.waiting.size) {
      requestAnimationFrame(() => {
        const changes = this.waiting;
        this.waiting = new Set();
        for (const listener of this.listeners) listener(changes);
      });
    }
    this.waiting.add(what);
  }
}
