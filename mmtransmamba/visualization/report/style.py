"""The style sheet of the report; it needs no external font or file."""

CSS = """
:root { color-scheme: light dark;
  --page: #f6f7f9; --card: #fff; --ink: #1c2430; --soft: #5d6878; --line: #e2e6eb;
  --accent: #0b6e99; --above: #0b6e99; --below: #c2571a; --bad: #b3261e;
  --c0: #0b6e99; --c1: #c2571a; --c2: #3b8a4e; --c3: #8e4fa8;
  --c4: #a37a00; --c5: #c23d72; --c6: #5468c4; --c7: #4a7d7d;
  --taken: #0b6e99; --fresh: #e0a458; --kept: #b9c2cc; }
@media (prefers-color-scheme: dark) { :root {
  --page: #12161c; --card: #1a2028; --ink: #e4e9ef; --soft: #98a4b3; --line: #2c3540;
  --accent: #58b6de; --above: #58b6de; --below: #ee955c; --bad: #ff8a80;
  --c0: #58b6de; --c1: #ee955c; --c2: #7fc98f; --c3: #c795dd;
  --c4: #d9b84a; --c5: #ee86ae; --c6: #98a8f2; --c7: #86c1c1;
  --taken: #3b93bb; --fresh: #b98546; --kept: #4c5866; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Cantarell,
    "Noto Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 36px 24px 56px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 38px 0 12px; }
p { margin: 0 0 10px; overflow-wrap: anywhere; }
.kind { color: var(--accent); font-weight: 600; font-size: 13px; margin: 0 0 4px;
  letter-spacing: .04em; text-transform: uppercase; }
.lead { color: var(--soft); font-size: 16px; max-width: 76ch; }
.none, .note { color: var(--soft); font-size: 13px; margin: 4px 0 0; }
.tiles { display: grid; gap: 12px; margin: 22px 0 0; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); }
.tiles li, figure, .card, details { background: var(--card);
  border: 1px solid var(--line); border-radius: 10px; }
.tiles li { padding: 13px 16px; }
.tiles b { display: block; font-size: 24px; line-height: 1.25; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: 13px; overflow-wrap: anywhere; }
.grid-of { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); }
figure { margin: 0; padding: 13px 14px 12px; min-width: 0; }
figcaption { font-size: 14px; font-weight: 600; margin: 0 0 8px;
  overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 11.5px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); }
svg .reference { stroke: var(--soft); stroke-dasharray: 5 4; stroke-width: 1.4; }
svg path { fill: none; stroke-width: 2; stroke-linejoin: round;
  stroke-linecap: round; stroke: var(--c); }
svg circle { fill: var(--c); } svg text.bad, .bad { fill: var(--bad);
  color: var(--bad); } p.bad { font-size: 13px; margin: 6px 0 0; }
svg .above { fill: var(--above); } svg .below { fill: var(--below); }
svg .nan { fill: var(--bad); fill-opacity: .5; }
.s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); }
.s3 { --c: var(--c3); } .s4 { --c: var(--c4); } .s5 { --c: var(--c5); }
.s6 { --c: var(--c6); } .s7 { --c: var(--c7); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 2px 16px;
  margin: 6px 0 0; padding: 0; font-size: 13px; color: var(--soft); }
.legend li::before { content: ""; display: inline-block; width: 18px; height: 0;
  margin-right: 6px; vertical-align: middle; border-top: 3px solid var(--c); }
.legend li.dashed::before { border-top: 2px dashed var(--soft); }
.scale { display: flex; align-items: center; gap: 10px; font-size: 13px;
  color: var(--soft); margin: 6px 0 0; }
.scale span { width: 15px; height: 15px; border-radius: 3px; }
.scale .above { background: var(--above); } .scale .below { background: var(--below); }
.card { padding: 6px 16px; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 7px 14px 7px 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--soft); font-weight: 600; font-size: 13px; }
tbody th { font-weight: 500; min-width: 120px; overflow-wrap: anywhere; }
details table { font-size: 13px; } details tbody th { min-width: 230px; }
details td:not(.right) { overflow-wrap: anywhere; min-width: 105px; }
th.right + :not(.right), td.right + :not(.right) { padding-left: 14px; }
.right { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bar { display: flex; height: 22px; border-radius: 6px; overflow: hidden; gap: 2px;
  margin: 12px 0 8px; }
.bar span { min-width: 2px; }
.bar .taken, .key .taken { background: var(--taken); }
.bar .fresh, .key .fresh { background: var(--fresh); }
.bar .kept, .key .kept { background: var(--kept); }
.key { display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 13px;
  color: var(--soft); margin: 0 0 14px; }
.key i { display: inline-block; width: 12px; height: 12px; border-radius: 3px;
  margin-right: 6px; vertical-align: -1px; }
details { margin: 12px 0 0; padding: 0 16px; }
summary { cursor: pointer; padding: 11px 0; font-weight: 600; font-size: 14px; }
summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; }
pre { margin: 0 0 16px; overflow: auto; max-height: 640px; font: 12.5px/1.5
  ui-monospace, "Cascadia Mono", Menlo, "DejaVu Sans Mono", monospace; }
details > div { overflow-x: auto; padding-bottom: 8px; }
img { max-width: 100%; height: auto; display: block; border-radius: 6px; }
.wide { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); }
.wide figure { max-width: 720px; }
footer { margin-top: 40px; color: var(--soft); font-size: 13px; }
@media print { details { break-inside: avoid; } figure { break-inside: avoid; } }
"""
