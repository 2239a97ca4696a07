/* Draws anomaly maps and regions; every page that shows them contains this file. */
"use strict";
const LAYER_PX = 480;

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/* Where an image lies on the map: stretched over it, or padded, in whole numbers as images/regions.py computes them. */
function placementOf(width, height, answer) {
  const rows = answer.anomaly_map.length, columns = answer.anomaly_map[0].length;
  if (!answer.is_padded) return { top: 0, left: 0, rows, columns };
  const [side, filled] = height * columns >= width * rows ? [height, rows] : [width, columns];
  const margin = (whole, own) => Math.floor((whole * side - own * filled) / (2 * side));
  const inner = (own) => Math.max(1, Math.floor((own * filled) / side));
  return { top: margin(rows, height), left: margin(columns, width), rows: inner(height), columns: inner(width) };
}

/* [multiple of the pixel threshold, colour], as in the overlays and the report. */
const HEAT = [[0, [0, 0, 0]], [0.999, [22, 32, 74]], [1, [205, 26, 20]], [2, [255, 205, 40]], [3, [255, 255, 255]]];

function heat(value) {
  if (value === null || value >= 3) return HEAT[4][1];
  const at = Math.max(1, HEAT.findIndex(([stop]) => stop > value));
  const [[low, from], [high, to]] = [HEAT[at - 1], HEAT[at]];
  const share = Math.max(0, (value - low) / (high - low));
  return from.map((part, channel) => part + share * (to[channel] - part));
}

function paintHeat(map, placement) {
  const { top, left, rows, columns } = placement;
  const canvas = element("canvas");
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(columns, rows);
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < columns; x++)
      picture.data.set([...heat(map[top + y][left + x]), 255], 4 * (y * columns + x));
  context.putImageData(picture, 0, 0);
  return canvas;
}

/* The connected regions (8 neighbours) above 1: boxes in positions of the placement, with their peaks. */
function regionsOf(map, placement, smallest) {
  const { top, left, rows, columns } = placement;
  const seen = new Uint8Array(rows * columns);
  const exceeds = (y, x) => { const value = map[top + y][left + x]; return value === null || value > 1; };
  const found = [];
  for (let start = 0; start < rows * columns; start++) {
    if (seen[start] || !exceeds(Math.floor(start / columns), start % columns)) continue;
    const region = { left: columns, top: rows, right: 0, bottom: 0, area: 0, peak: 0 };
    const open = [start];
    seen[start] = 1;
    while (open.length) {
      const place = open.pop(), y = Math.floor(place / columns), x = place % columns;
      region.left = Math.min(region.left, x); region.right = Math.max(region.right, x + 1);
      region.top = Math.min(region.top, y); region.bottom = Math.max(region.bottom, y + 1);
      region.area += 1; region.peak = Math.max(region.peak, map[top + y][left + x] ?? 3);
      for (let v = Math.max(0, y - 1); v < Math.min(rows, y + 2); v++)
        for (let u = Math.max(0, x - 1); u < Math.min(columns, x + 2); u++)
          if (!seen[v * columns + u] && exceeds(v, u)) { seen[v * columns + u] = 1; open.push(v * columns + u); }
    }
    if ((100 * region.area) / (rows * columns) >= 100 * smallest) found.push(region); // the rounding of regions.py
  }
  return found.sort((one, other) => other.peak - one.peak);
}

/* The centre of the first position where the map is highest, in positions of the placement. */
function strongestOf(map, placement) {
  const { top, left, rows, columns } = placement;
  let found = [0, 0], highest = -Infinity;
  for (let y = 0; y < rows; y++)
    for (let x = 0; x < columns; x++) {
      const value = map[top + y][left + x] ?? Infinity;
      if (value > highest) { highest = value; found = [x, y]; }
    }
  return found.map((start) => start + 0.5);
}

function figure(picture, caption) {
  const made = element("figure");
  made.append(picture, element("figcaption", caption));
  return made;
}

/* The anomaly map over the picture; the boxes are a layer of their own, which can be hidden. */
function overlay(picture, answer) {
  const rows = answer.anomaly_map.length, columns = answer.anomaly_map[0].length;
  const size = picture ? [picture.naturalWidth, picture.naturalHeight] : [columns, rows];
  const placement = placementOf(...size, answer);
  const regions = regionsOf(answer.anomaly_map, placement, answer.smallest_region);
  const scale = LAYER_PX / Math.max(...size);
  const layers = ["map", "boxes"].map((name) => {
    const canvas = element("canvas", undefined, name);
    [canvas.width, canvas.height] = size.map((side) => Math.max(1, Math.round(side * scale)));
    return canvas;
  });
  const [map, boxes] = layers.map((canvas) => canvas.getContext("2d"));
  if (picture) map.drawImage(picture, 0, 0, layers[0].width, layers[0].height);
  map.globalAlpha = picture ? 0.6 : 1;
  map.drawImage(paintHeat(answer.anomaly_map, placement), 0, 0, layers[0].width, layers[0].height);
  boxes.strokeStyle = "#ff40c8";
  boxes.lineWidth = 2;
  const [across, down] = [layers[1].width / placement.columns, layers[1].height / placement.rows];
  for (const { left, top, right, bottom } of regions)
    boxes.strokeRect(left * across, top * down, (right - left) * across, (bottom - top) * down);
  const stack = element("div", undefined, "layers");
  stack.append(...layers);
  if (!regions.length && answer.is_anomaly) {
    const [x, y] = strongestOf(answer.anomaly_map, placement);
    const at = [x * size[0] / placement.columns, y * size[1] / placement.rows].map(Math.floor).join(", ");
    return figure(stack, `whole image: no single region stands out, strongest at (${at})`);
  }
  if (!regions.length) return figure(stack, "no region above the pixel threshold");
  const share = regions.reduce((sum, region) => sum + region.area, 0) / (placement.rows * placement.columns);
  const several = regions.length === 1 ? "1 region" : `${regions.length} regions`;
  return figure(stack, `${several}: ${Number((100 * share).toPrecision(2))} % of the image, peak ${regions[0].peak.toFixed(2)}`);
}
