// Plots: Bokeh's frames, with the particles painted into one image each.

const MANY = 5000;
const BLUE = [31, 90, 148];
const PALE = [176, 202, 228];
const DARK = [8, 38, 72];
const ORANGE = [217, 95, 2];

// How much of each pixel around a point its mark covers: [dx, dy, share], a disc or, of some
// width, a ring.
function stampOf(radius, width = 0) {
  const stamp = [];
  const reach = Math.ceil(radius + 1);
  for (let dy = -reach; dy <= reach; dy++) {
    for (let dx = -reach; dx <= reach; dx++) {
      const distance = Math.hypot(dx, dy);
      let share = Math.min(1, Math.max(0, radius + 0.5 - distance));
      if (width) share *= Math.min(1, Math.max(0, distance - radius + width + 0.5));
      if (share > 0.02) stamp.push([dx, dy, share]);
    }
  }
  return stamp;
}

function extent(values, rows) {
  let [low, high] = [Infinity, -Infinity];
  for (const row of rows) {
    const value = values[row];
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [0, 1];
}

function padded([low, high]) {
  const margin = 0.05 * (high - low) || 1;
  return [low - margin, high + margin];
}

// Mollweide's projection of a viewing direction.
function mollweide(phi, theta) {
  const x = new Float32Array(phi.length);
  const y = new Float32Array(phi.length);
  for (let i = 0; i < phi.length; i++) {
    const longitude = (((phi[i] + 180) % 360) + 360) % 360 - 180;
    const latitude = ((90 - theta[i]) * Math.PI) / 180;
    let angle = latitude;
    for (let step = 0; step < 12; step++) {
      const slope = Math.max(2 + 2 * Math.cos(2 * angle), 1e-9);
      const off = 2 * angle + Math.sin(2 * angle) - Math.PI * Math.sin(latitude);
      angle = Math.min(Math.PI / 2, Math.max(-Math.PI / 2, angle - off / slope));
    }
    x[i] = ((2 * Math.SQRT2) / 180) * longitude * Math.cos(angle);
    y[i] = Math.SQRT2 * Math.sin(angle);
  }
  return [x, y];
}

function insidePolygon(px, py, x, y) {
  let inside = false;
  for (let i = 0, j = px.length - 1; i < px.length; j = i++) {
    if (py[i] > y !== py[j] > y) {
      if (x < ((px[j] - px[i]) * (y - py[i])) / (py[j] - py[i]) + px[i]) inside = !inside;
    }
  }
  return inside;
}

class Plot {
  constructor(store, view, spec) {
    Object.assign(this, { store, spec });
    this.model = view.model;
    this.adding = false;
    const later = () => this.repaint();
    this.model.x_range.change.connect(later);
    this.model.y_range.change.connect(later);
    this.model.properties.inner_width.change.connect(() => this.fit());
    this.model.properties.inner_height.change.connect(() => this.fit());
    const handlers = {
      selectiongeometry: (event) => event.final && this.brush(event.geometry),
      tap: (event) => this.tap(event),
      mousemove: (event) => this.move(event),
      mouseleave: () => store.hover(-1),
      reset: () => this.home(),
    };
    for (const [name, handler] of Object.entries(handlers)) {
      this.model.document.on_event(name, (_, event) => handler(event));
    }
    store.on((changes) => this.update(changes));
  }

  repaint() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  }

  setRanges([x0, x1], [y0, y1]) {
    this.model.x_range.setv({ start: x0, end: x1 });
    this.model.y_range.setv({ start: y0, end: y1 });
  }

  move() {}
  tap() {}
}

class Scatter extends Plot {
  constructor(store, view, spec) {
    super(store, view, spec);
    [this.image, this.marks] = this.model.renderers
      .filter((renderer) => renderer.glyph.type !== "MultiLine")
      .map((renderer) => renderer.data_source);
    this.Array32 = this.image.data.image
      ? this.image.data.image[0].constructor
      : this.image.get("image")[0].constructor;
    const [x, y] = [store.values(spec.x), store.values(spec.y)];
    [this.x, this.y] = spec.kind === "sphere" ? mollweide(x, y) : [x, y];
    this.rows = null; // of all particles
    this.background = null;
    this.size = [1, 1]; // of the micrograph, in its pixels
    this.home();
  }

  *each() {
    if (this.rows) yield* this.rows;
    else for (let row = 0; row < this.store.count; row++) yield row;
  }

  home() {
    const { kind } = this.spec;
    let x = padded(extent(this.x, this.each()));
    let y = padded(extent(this.y, this.each()));
    if (kind === "sphere") [x, y] = [[-2.9, 2.9], [-1.5, 1.5]];
    if (kind === "map") {
      const [width, height] = this.size;
      [x, y] = [[0, width], [height, 0]];
    }
    if (kind === "around_zero") {
      const reach = Math.max(...x.map(Math.abs), ...y.map(Math.abs));
      [x, y] = [[-reach, reach], [reach, -reach]];
    }
    if (kind === "same_axes") {
      const both = [Math.min(x[0], y[0]), Math.max(x[1], y[1])];
      [x, y] = [both, both];
    }
    this.ranges = [x, y];
    this.fit();
  }

  // Where a length is the same in x and y, the wider side shows more.
  fit() {
    let [x, y] = this.ranges;
    const [width, height] = [this.model.inner_width, this.model.inner_height];
    if (["sphere", "map", "around_zero"].includes(this.spec.kind) && width && height) {
      const scale = Math.max(Math.abs(x[1] - x[0]) / width, Math.abs(y[1] - y[0]) / height);
      const wider = ([a, b], pixels) => {
        const [middle, half] = [(a + b) / 2, (Math.sign(b - a) * scale * pixels) / 2];
        return [middle - half, middle + half];
      };
      [x, y] = [wider(x, width), wider(y, height)];
    }
    this.setRanges(x, y);
    this.repaint();
  }

  update(changes) {
    if (changes.has("selected") || changes.has("shown") || changes.has("start")) {
      this.repaint();
    }
    if (changes.has("picked") || changes.has("hovered") || changes.has("rows")) this.mark();
  }

  mark() {
    const { picked, hovered } = this.store;
    const rows = [picked, hovered].filter(
      (row, place, all) =>
        row >= 0 && all.indexOf(row) === place && (!this.rows || this.rows.includes(row)),
    );
    this.marks.data = { x: rows.map((r) => this.x[r]), y: rows.map((r) => this.y[r]) };
  }

  get frame() {
    const { x_range: x, y_range: y } = this.model;
    const ends = (range) => [Math.min(range.start, range.end), Math.max(range.start, range.end)];
    return { x: ends(x), y: ends(y) };
  }

  paint() {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const width = Math.round(this.model.inner_width * ratio);
    const height = Math.round(this.model.inner_height * ratio);
    if (!(width > 0 && height > 0)) return;
    const { x: [x0, x1], y: [y0, y1] } = this.frame;
    const [perX, perY] = [width / (x1 - x0), height / (y1 - y0)];
    const { selected, shown, count } = this.store;
    const number = this.rows ? this.rows.length : count;
    const many = number > MANY;
    const ofMap = this.spec.kind === "map";
    let radius = ratio * (many ? 1 : number > 800 ? 2.2 : 3.2);
    // In a micrograph rings of the template's size, through which one sees the particle.
    if (ofMap) radius = Math.min(40, Math.max(4, (perX / ratio) * this.store.page.side / 2)) * ratio;
    const line = ofMap ? 2 * ratio : 1.4 * ratio;
    const stamps = [stampOf(radius, ofMap ? line : 0), stampOf(radius, line)];
    const layers = [new Float32Array(width * height), new Float32Array(width * height)];
    for (const row of this.each()) {
      if (!shown[row]) continue;
      const px = Math.round((this.x[row] - x0) * perX);
      const py = Math.round((this.y[row] - y0) * perY);
      if (!(px >= 0 && px < width && py >= 0 && py < height)) continue;
      const layer = layers[selected[row]];
      for (const [dx, dy, share] of stamps[many ? 0 : this.store.isConcerned(row)]) {
        const [sx, sy] = [px + dx, py + dy];
        if (sx >= 0 && sx < width && sy >= 0 && sy < height) layer[sy * width + sx] += share;
      }
    }
    const image = new this.Array32(this.blend(layers, width, height, many), [height, width]);
    this.image.data = { image: [image], x: [x0], y: [y0], dw: [x1 - x0], dh: [y1 - y0] };
  }

  blend([plain, chosen], width, height, many) {
    const pixels = new Uint32Array(width * height);
    let most = 0;
    if (many) for (const value of plain) if (value > most) most = value;
    const scale = 1 / Math.log1p(most || 1);
    const under = this.background ? this.backgroundAt(width, height) : null;
    for (let i = 0; i < pixels.length; i++) {
      if (!plain[i] && !chosen[i] && !under) continue;
      let [r, g, b, a] = [255, 255, 255, 0];
      if (under && under[i] >= 0) [r, g, b, a] = [under[i], under[i], under[i], 1];
      const over = (colour, share) => {
        const left = a * (1 - share);
        const total = share + left;
        r = (colour[0] * share + r * left) / total;
        g = (colour[1] * share + g * left) / total;
        b = (colour[2] * share + b * left) / total;
        a = total;
      };
      if (plain[i] > 0) {
        const t = many ? Math.log1p(plain[i]) * scale : 0;
        const colour = many ? PALE.map((c, k) => c + (DARK[k] - c) * t) : BLUE;
        over(colour, Math.min(1, plain[i] * 0.9));
      }
      if (chosen[i] > 0) over(ORANGE, Math.min(1, chosen[i]));
      if (a) pixels[i] = ((a * 255) << 24) | (b << 16) | (g << 8) | r;
    }
    return pixels;
  }

  // Grey values of the micrograph's thumbnail on the plot's pixels; −1 outside.
  backgroundAt(width, height) {
    const { grey, width: columns, height: rows } = this.background;
    const { x: [x0, x1], y: [y0, y1] } = this.frame;
    const found = new Int16Array(width * height).fill(-1);
    for (let py = 0; py < height; py++) {
      const row = Math.floor(((y0 + ((py + 0.5) * (y1 - y0)) / height) / this.size[1]) * rows);
      if (row < 0 || row >= rows) continue;
      for (let px = 0; px < width; px++) {
        const x = x0 + ((px + 0.5) * (x1 - x0)) / width;
        const column = Math.floor((x / this.size[0]) * columns);
        if (column < 0 || column >= columns) continue;
        // Pale, so that the marks stand out.
        found[py * width + px] = 90 + 0.65 * grey[row * columns + column];
      }
    }
    return found;
  }

  brush(geometry) {
    const { shown } = this.store;
    const inside =
      geometry.type === "rect"
        ? (x, y) =>
            x >= Math.min(geometry.x0, geometry.x1) && x <= Math.max(geometry.x0, geometry.x1) &&
            y >= Math.min(geometry.y0, geometry.y1) && y <= Math.max(geometry.y0, geometry.y1)
        : geometry.type === "poly"
          ? (x, y) => insidePolygon(geometry.x, geometry.y, x, y)
          : null;
    if (!inside) return;
    const rows = [];
    for (const row of this.each()) {
      if (shown[row] && inside(this.x[row], this.y[row])) rows.push(row);
    }
    this.store.select(rows, keys.shift);
  }

  nearest(event) {
    const { x: [x0, x1], y: [y0, y1] } = this.frame;
    const perX = this.model.inner_width / (x1 - x0);
    const perY = this.model.inner_height / (y1 - y0);
    let [best, least] = [-1, 12 * 12];
    for (const row of this.each()) {
      if (!this.store.shown[row]) continue;
      const dx = (this.x[row] - event.x) * perX;
      const dy = (this.y[row] - event.y) * perY;
      const distance = dx * dx + dy * dy;
      if (distance < least) [best, least] = [row, distance];
    }
    return best;
  }

  tap(event) {
    const row = this.nearest(event);
    if (row >= 0) this.store.pick(row);
  }

  move(event) {
    if (this.looking) return;
    this.looking = requestAnimationFrame(() => {
      this.looking = null;
      this.store.hover(this.nearest(event));
    });
  }
}

class Histogram extends Plot {
  constructor(store, view, spec) {
    super(store, view, spec);
    this.sources = this.model.renderers.map((renderer) => renderer.data_source);
    this.lines = this.model.center.filter((mark) => ["Span", "Label"].includes(mark.type));
    this.choose("z");
  }

  choose(name) {
    const column = this.store.columns.get(name);
    if (!column) return;
    this.column = column;
    this.partner = name === "z" ? this.store.values("z_match") : null;
    this.model.below[0].axis_label = column.title + (column.unit ? ` (${column.unit})` : "");
    for (const line of this.lines) line.visible = name.startsWith("z");
    this.home();
  }

  home() {
    const rows = Array.from({ length: this.store.count }, (_, row) => row);
    let [low, high] = extent(this.column.values, rows);
    if (this.partner) {
      const [a, b] = extent(this.partner, rows);
      if (a !== 0 || b !== 1) [low, high] = [Math.min(low, a), Math.max(high, b)];
    }
    if (high - low < 1e-6) [low, high] = [low - 0.5, high + 0.5];
    // A whole number of the column's steps, so that no bin holds one more than its neighbours.
    const wanted = Math.min(60, Math.max(10, Math.round(2 * Math.sqrt(this.store.count))));
    this.bin = Math.max(1, Math.ceil((high - low) / wanted / this.column.step)) * this.column.step;
    this.low = (Math.floor(low / this.column.step) - 0.5) * this.column.step;
    this.bins = Math.floor((high - this.low) / this.bin) + 1;
    const lines = this.lines.filter((mark) => mark.visible && mark.type === "Span");
    const ends = [this.low, this.low + this.bins * this.bin, ...lines.map((line) => line.location)];
    this.model.x_range.setv({ start: Math.min(...ends) - this.bin, end: Math.max(...ends) + this.bin });
    this.paint();
  }

  fit() {}

  repaint() {}

  update(changes) {
    if (["selected", "shown", "start"].some((what) => changes.has(what))) this.paint();
  }

  paint() {
    const { shown, selected, count } = this.store;
    const counted = (values, test) => {
      const top = new Float64Array(this.bins);
      if (values) {
        for (let row = 0; row < count; row++) {
          const place = Math.floor((values[row] - this.low) / this.bin);
          if (place >= 0 && place < this.bins && test(row)) top[place] += 1;
        }
      }
      return top;
    };
    const tops = [
      counted(this.column.values, (row) => shown[row]),
      counted(this.column.values, (row) => shown[row] && selected[row]),
      counted(this.partner, (row) => shown[row]),
    ];
    const left = Array.from({ length: this.bins }, (_, i) => this.low + i * this.bin);
    const right = left.map((x) => x + this.bin);
    this.sources.forEach((source, i) => {
      source.data = { left, right, top: Array.from(tops[i]) };
    });
    const most = Math.max(1, ...tops[0], ...tops[2]);
    this.model.y_range.setv({ start: 0, end: 1.06 * most });
  }

  brush(geometry) {
    if (geometry.type !== "rect") return;
    const low = Math.min(geometry.x0, geometry.x1);
    const high = Math.max(geometry.x0, geometry.x1);
    const { values } = this.column;
    const { shown } = this.store;
    const rows = this.store.rowsWhere(
      (row) => shown[row] && values[row] >= low && values[row] <= high,
    );
    this.store.select(rows, keys.shift);
  }
}
