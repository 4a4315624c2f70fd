/* What report.html looks like, measured by a browser: labels that touch or leave their
 * chart, text that is hard to read (WCAG's contrast below 4.5), what is wider than the page.
 * The findings are the page's title; tests/cli/workflow-page puts this into a copy of the page. */
function luminance(colour) {
    const part = colour.match(/[\d.]+/g).slice(0, 3).map(Number).map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part[0] + 0.7152 * part[1] + 0.0722 * part[2];
}
function contrast(a, b) {
    const x = luminance(a), y = luminance(b);
    return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
}
window.addEventListener("load", () => {
    const found = [], paper = getComputedStyle(document.body).backgroundColor;
    let labels = 0;
    for (const svg of document.querySelectorAll("svg")) {
        const frame = svg.getBoundingClientRect();
        const boxes = [...svg.querySelectorAll("text")].map(t =>
            ({text: t.textContent, box: t.getBoundingClientRect(),
              fill: getComputedStyle(t).fill}));
        labels += boxes.length;
        boxes.forEach((a, i) => {
            if (a.box.left < frame.left - 1 || a.box.right > frame.right + 1 ||
                a.box.top < frame.top - 1 || a.box.bottom > frame.bottom + 1)
                found.push("outside: " + a.text);
            if (a.box.height < 8) found.push("small: " + a.text);
            if (contrast(a.fill, paper) < 4.5) found.push("faint: " + a.text);
            for (const b of boxes.slice(i + 1))
                if (a.box.left < b.box.right && b.box.left < a.box.right &&
                    a.box.top + 2 < b.box.bottom && b.box.top + 2 < a.box.bottom)
                    found.push("overlap: " + a.text + " and " + b.text);
        });
    }
    for (const e of document.querySelectorAll("h1,h2,p,td,th,pre"))
        if (e.textContent && contrast(getComputedStyle(e).color, paper) < 4.5)
            found.push("faint: " + e.textContent.slice(0, 20));
    if (document.documentElement.scrollWidth > window.innerWidth + 1)
        found.push("wider than the page");
    const dark = luminance(paper) < 0.2 ? "dark" : "light";
    document.title = "RESULT " + dark + " labels " + labels + ": " +
        (found.length ? found.slice(0, 5).join("; ") : "clean");
});
