"use strict";
for (const hint of document.querySelectorAll("[data-sortable]")) {
  hint.textContent = hint.dataset.sortable;
}
// Headers with a data-column become buttons that sort the table by that column.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const headers = [...table.querySelectorAll("th[data-column]")];

  const valueOf = (row, header) => {
    const cell = row.cells[header.dataset.column];
    return cell.dataset.value ?? cell.textContent.trim();
  };

  const sortBy = (header) => {
    const direction = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    const sign = direction === "ascending" ? 1 : -1;
    const rows = [...body.rows].map((row) => ({ row, value: valueOf(row, header) }));
    const known = rows.filter(({ value }) => value !== "—");
    const numeric = known.every(({ value }) => Number.isFinite(Number(value)));
    const order = new Intl.Collator("en", { numeric: true });
    known.sort((a, b) => sign * (numeric ? a.value - b.value : order.compare(a.value, b.value)));
    const unknown = rows.filter(({ value }) => value === "—");
    body.append(...[...known, ...unknown].map(({ row }) => row));
    for (const each of headers) each.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
    table.closest(".scroll").scrollTop = 0;
  };

  for (const header of headers) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sortBy(header));
  }
}
