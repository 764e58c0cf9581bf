// Pages that follow an agent while it works: what is saved they show as the server renders it, what is being
// written as it comes. Texts become text nodes only.
"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const followed = () => document.querySelector("[data-live]");
  const SIGNED_OUT = "You are signed out. Copy what you typed, sign in again, then reload this page.";
  const heard = new Set();
  const PARTS = ["runs", "trace", "conversation", "memory"];
  const rendered = new Map(PARTS.map((id) => [id, find(id)?.outerHTML]));
  let live = { place: 0, text: "", count: 0 };
  let source, timer, busy = false, again = false, pressed = false;

  function notice(text) {
    const shown = document.createElement("p");
    shown.className = "notice bad";
    shown.role = "alert";
    shown.textContent = text;
    find("notice").replaceChildren(...(text ? [shown] : []));
  }

  // who has typed something keeps it; all others are led to the sign-in
  function signedOut() {
    source?.close();
    const typed = [...document.querySelectorAll("textarea, input:not([type=hidden])")].some((field) => field.value);
    if (!typed && !sent.text) return location.reload();
    notice(SIGNED_OUT);
    const way = document.createElement("a");
    Object.assign(way, { href: "/sign-in", target: "_blank", rel: "noopener", textContent: "Sign in" });
    find("notice").firstElementChild.append(" ", way);
  }

  // what is new is read out once, however often the page around it is made anew
  function readOut(old, fresh) {
    for (const item of fresh.querySelectorAll(".bubble.assistant[id], .did > [id], .trace > [id], .notice.bad")) {
      const before = item.id ? old.querySelector(`#${CSS.escape(item.id)}`) : null;
      const said = (item.querySelector("summary") ?? item).textContent.replace(/\s+/g, " ").trim();
      if (before || item.hidden || !said || (!item.id && old.textContent.includes(item.textContent))) continue;
      const line = document.createElement("p");
      line.textContent = said;
      find("heard")?.append(line);
    }
  }

  function note(text) {
    const shown = find("live-note");
    if (!shown) return;
    shown.hidden = !text;
    shown.firstElementChild.textContent = text;
  }

  // a chat stays at its end, unless somebody reads further up

  const below = () => find("say") ? find("conversation").getBoundingClientRect().bottom - window.innerHeight : 1e9;
  const atEnd = () => below() < 120;

  function toEnd() {
    if (find("say")) window.scrollBy(0, below() + find("say").offsetHeight);
  }

  // the message being written

  function readLive() {
    const shown = find("live-text");
    if (!shown || Number(shown.dataset.place) < live.place) return;
    const text = shown.textContent, count = [...text].length;
    if (Number(shown.dataset.place) > live.place || count > live.count) {
      live = { place: Number(shown.dataset.place), text, count };
    }
  }

  function showLive() {
    const shown = find("live-text");
    if (!shown) return;
    const written = live.text && live.place > Number(document.querySelector("[data-last]")?.dataset.last ?? 0);
    shown.textContent = written ? live.text : "";
    find("live").hidden = !written;
  }

  function write(event) {
    if (event.place !== live.place) live = { place: event.place, text: "", count: 0 };
    const letters = [...event.text], known = live.count - event.at;
    if (known < 0) return soon(); // its beginning was not heard here
    live.text += letters.slice(known).join("");
    live.count = Math.max(live.count, event.at + letters.length);
    note("");
    const low = atEnd();
    showLive();
    if (low) toEnd();
  }

  // what is saved

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(refresh, 80);
  }

  async function refresh() {
    if (busy) return void (again = true);
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store" });
      if (new URL(answer.url).pathname !== location.pathname || answer.status === 401) return signedOut();
      const text = await answer.text();
      if (pressed) again = true; // what is being clicked on stays until it was
      else if (answer.ok) swap(new DOMParser().parseFromString(text, "text/html"));
    } catch {
      note("The server does not answer; this page goes on as soon as it does.");
    } finally {
      busy = false;
      if (again) {
        again = false;
        soon();
      }
    }
  }

  function swap(page) {
    const low = atEnd();
    for (const id of PARTS) {
      const old = find(id), fresh = page.getElementById(id);
      const html = fresh?.outerHTML;
      if (!old || !fresh || rendered.get(id) === html) continue;
      for (const details of old.querySelectorAll("details[open][id]")) {
        fresh.querySelector(`#${CSS.escape(details.id)}`)?.setAttribute("open", "");
      }
      for (const field of old.querySelectorAll("input[id]")) {
        const same = fresh.querySelector(`#${CSS.escape(field.id)}`);
        if (same) same.value = field.value;
      }
      readOut(old, fresh);
      rendered.set(id, html);
      const focused = old.contains(document.activeElement) && document.activeElement;
      old.replaceWith(document.adoptNode(fresh));
      window.htmx?.process(fresh);
      if (!focused) continue;
      fresh.tabIndex = -1;
      ((focused.id && find(focused.id)) || fresh).focus({ preventScroll: true });
    }
    readLive();
    showLive();
    if (low) toEnd();
    if (!followed()) source?.close();
  }

  function hear(event) {
    const wanted = followed()?.dataset.run;
    if (wanted && event.run_id && event.run_id !== wanted) return;
    const key = `${event.run_id} ${event.type} ${event.seq}`; // the same comes by two ways
    if (event.type !== "saved" && heard.has(key)) return;
    heard.add(key);
    if (event.type === "text_delta" && !find("runs")) return write(event);
    if (event.type === "text_delta" || event.type === "reasoning_delta") return;
    note(event.type === "retry" ? `${event.error} It is tried again (attempt ${event.attempt}).` : "");
    if (event.type === "retry") live = { place: 0, text: "", count: 0 }; // it is said anew
    if (event.type === "result") heard.clear(); // a run that is taken up again counts anew
    soon();
  }

  function follow() {
    const name = followed()?.dataset.live;
    if (!name) return;
    source = new EventSource(`/agentos/v1/agents/${encodeURIComponent(name)}/events`);
    source.onmessage = (message) => hear(JSON.parse(message.data));
    source.onopen = soon; // what happened meanwhile
    source.onerror = () => source.readyState === EventSource.CLOSED && soon(); // refused: the session ended
    // a turn may run in a process whose events do not come here
    setInterval(() => document.querySelector("[data-run], .busy .state") && soon(), 5000);
  }

  const press = (event) => { pressed = event.type === "pointerdown"; };
  for (const type of ["pointerdown", "pointerup", "pointercancel"]) document.addEventListener(type, press, true);

  // saying something

  let sent = { text: "", key: "" };

  async function say(form, words) {
    const text = words.value;
    if (!text.trim()) return;
    if (text !== sent.text) sent = { text, key: `${Date.now()}-${Math.random().toString(36).slice(2)}` };
    words.value = "";
    notice("");
    let answer;
    try {
      answer = await fetch(form.dataset.path, {
        method: "POST",
        headers: { "content-type": "application/json", "x-csrf-token": form.dataset.csrf },
        body: JSON.stringify({ text, otid: sent.key }),
      });
    } catch {
      words.value ||= text;
      return notice("The server does not answer. See whether it runs, then send it again: it is taken once.");
    }
    if (!answer.ok) {
      const { detail } = await answer.json().catch(() => ({}));
      words.value ||= text;
      if (answer.status === 401) return signedOut();
      return notice(Array.isArray(detail) ? detail.map((fault) => fault.msg).join("; ") : detail ?? "It was refused.");
    }
    sent = { text: "", key: "" };
    soon();
    try {
      await read(answer.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch {} // the agent's own events go on
  }

  async function read(lines) {
    let rest = "";
    for (let part = await lines.read(); !part.done; part = await lines.read()) {
      const events = (rest + part.value).split("\n\n");
      rest = events.pop();
      for (const event of events) if (event.startsWith("data: ")) hear(JSON.parse(event.slice(6)));
    }
  }

  const form = find("say"), words = find("words");
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    say(form, words);
  });
  words?.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || matchMedia("(pointer: coarse)").matches) return;
    event.preventDefault();
    form.requestSubmit();
  });
  readLive();
  toEnd();
  follow();
})();
