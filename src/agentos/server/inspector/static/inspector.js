// What htmx does not do: the character count while a text is typed, a word when the server is silent, and a place for
// whoever works by keyboard when the button that was pressed is gone.
"use strict";
document.addEventListener("input", (event) => {
  const count = document.getElementById(event.target.dataset?.count ?? "");
  if (count) count.textContent = [...event.target.value].length.toLocaleString("en-US");
});
document.addEventListener("htmx:error", () => {
  const notice = document.createElement("p");
  notice.className = "notice bad";
  notice.role = "alert";
  notice.textContent = "The server does not answer. Nothing was changed; see whether it runs, then do it again.";
  document.getElementById("notice").replaceChildren(notice);
});
document.addEventListener("htmx:before:request", () => document.getElementById("notice").replaceChildren());
document.addEventListener("htmx:finally:request", ({ detail }) => {
  if (document.activeElement !== document.body) return;
  const changed = document.getElementById(detail.ctx.target?.id) ?? document.getElementById("main");
  changed.tabIndex = -1;
  changed.focus({ preventScroll: true });
});
document.addEventListener("click", (event) => { // of a double click the second lands where another button may stand by then
  if (event.detail > 1 && event.target.closest("button, a.button")) {
    event.preventDefault();
    event.stopPropagation();
  }
}, true);
const view = document.querySelector(".views [aria-current]");
if (view) view.closest(".views").scrollLeft = view.offsetLeft - 60; // on a phone it may lie outside
