// All micrographs in a table, and one of them as a map of its particles.

function median(values) {
  const sorted = values.filter(Number.isFinite).sort((a, b) => a - b);
  if (!sorted.length) return NaN;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

class Micrographs {
  constructor(store, thumbnails) {
    Object.assign(this, { store, thumbnails, now: -1 });
    this.members = store.micrograph.words.map(() => []);
    for (let row = 0; row < store.count; row++) {
      this.members[store.micrograph.number[row]].push(row);
    }
    const columns = this.columns();
    const count = this.members.length;
    this.table = new Table(document.getElementById("micrograph-table"), columns, count, {
      onPick: (number) => this.show(number),
      isPicked: (number) => number === this.now,
    });
    for (const [id, step] of [["previous", -1], ["next", 1]]) {
      document.getElementById(id).addEventListener("click", () => {
        const { order } = this.table;
        const place = order.indexOf(this.now) + step;
        if (place >= 0 && place < order.length) this.show(order[place]);
      });
    }
    document.getElementById("select-micrograph").addEventListener("click", () => {
      if (this.now >= 0) store.select(this.members[this.now], keys.shift);
    });
    store.on((changes) => {
      if (changes.has("picked") && store.picked >= 0) {
        this.show(store.micrograph.number[store.picked]);
      }
    });
  }

  columns() {
    const { store, members } = this;
    const known = store.page.micrographs;
    const of = (name) => store.values(name);
    const medianOf = (values) => members.map((rows) =>
      values ? median(rows.map((row) => values[row])) : NaN);
    const z = of("z");
    const failed = members.map((rows) => rows.filter((row) => !z || Number.isNaN(z[row])).length);
    const concerned = members.map((rows) => rows.filter((row) => store.isConcerned(row)).length);
    const number = (title, values, digits) => ({
      title,
      numeric: true,
      value: (i) => values[i],
      text: (i) => (Number.isNaN(values[i]) ? "—" : fixed(values[i], digits)),
    });
    const name = (i) => store.micrograph.words[i];
    return [
      { title: "micrograph", numeric: false, value: name, text: name },
      number("particles", members.map((rows) => rows.length), 0),
      number("not refined", failed, 0),
      number("to check", concerned, 0),
      number("median z", medianOf(z), 2),
      number("median gain", medianOf(of("gain")), 2),
      number("defocus (µm)", known.map((one) => one.defocus / 1e4), 2),
      number("median rel. defocus (Å)", medianOf(of("defocus")), 0),
      number("pixel (Å)", known.map((one) => one.pixel), 3),
    ];
  }

  attach(plot) {
    this.plot = plot;
    if (this.now < 0 && this.members.length) this.show(0);
    else this.draw();
  }

  show(number) {
    if (number !== this.now) {
      this.now = number;
      this.draw();
    }
    this.table.reveal(number);
  }

  draw() {
    const { now, plot, store } = this;
    if (now < 0 || !plot) return;
    document.getElementById("micrograph-name").textContent = store.micrograph.words[now];
    const rows = this.members[now];
    plot.rows = rows;
    const thumbnail = this.thumbnails.images[now];
    const note = document.getElementById("micrograph-note");
    note.textContent = thumbnail?.error ?? (thumbnail ? "" : this.thumbnails.advice);
    plot.background = null;
    const reach = store.page.side / 2;
    plot.size = thumbnail?.shape ?? [plot.x, plot.y].map((values) => {
      const [, high] = extent(values, rows);
      return high + reach;
    });
    plot.home();
    plot.mark();
    if (thumbnail?.source) this.load(thumbnail, now);
  }

  // A picture becomes grey values only when it is looked at.
  load(thumbnail, number) {
    const image = new Image();
    image.onload = () => {
      if (number !== this.now) return;
      const { width, height } = image;
      const canvas = element("canvas", { width: String(width), height: String(height) });
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0);
      const { data } = context.getImageData(0, 0, width, height);
      const grey = new Uint8Array(width * height);
      for (let i = 0; i < grey.length; i++) grey[i] = data[4 * i];
      this.plot.background = { grey, width, height };
      this.plot.repaint();
    };
    image.src = thumbnail.source;
  }
}
