/* What a page gains in a browser that runs scripts: live rows, local times, copying. Every page works without it.

   What others wrote is only ever put into text nodes and attributes that cannot run: never into markup. */
'use strict';
(() => {
  const body = document.body;
  const live = document.getElementById('live');
  const announce = document.getElementById('announce');

  // -- times: relative ones go on, clock times move to the reader's zone ---------------------------------------------

  const STEPS = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];

  function span(seconds) {
    for (const [length, unit] of STEPS) if (seconds >= length) return `${Math.floor(seconds / length)} ${unit}`;
    return '0 s';
  }

  function ago(moment) {
    const seconds = (Date.now() - moment) / 1000;
    if (seconds >= 1) return `${span(seconds)} ago`;
    return seconds > -1 ? 'just now' : `in ${span(-seconds)}`;
  }

  function due(moment) {
    return moment > Date.now() ? ago(moment) : 'now';
  }

  function clock(moment) {
    const time = moment.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
    if (moment.toDateString() === new Date().toDateString()) return time;
    return `${moment.toLocaleDateString([], { month: 'short', day: 'numeric' })} ${time}`;
  }

  function tick(root) {
    for (const time of root.querySelectorAll('time')) {
      const moment = new Date(time.dateTime);
      const text = 'ago' in time.dataset ? ago(moment) : 'due' in time.dataset ? due(moment) : clock(moment);
      if (time.textContent !== text) time.textContent = text;
    }
  }

  // -- copying, asking, keys -----------------------------------------------------------------------------------------

  function ready(root) {
    if (navigator.clipboard) for (const button of root.querySelectorAll('.copy[hidden]')) button.hidden = false;
    tick(root);
  }

  document.addEventListener('click', async (event) => {
    const button = event.target.closest('.copy');
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    button.classList.add('done');
    announce.textContent = 'Copied';
    setTimeout(() => button.classList.remove('done'), 1200);
  });

  document.addEventListener('submit', (event) => {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) { event.preventDefault(); return; }
    if (event.target.method === 'get') {
      for (const field of event.target.elements) if (field.name && !field.value) field.disabled = true;
      setTimeout(() => { for (const field of event.target.elements) field.disabled = false; });
    } else {
      const pressed = event.submitter;
      if (pressed) setTimeout(() => { pressed.disabled = true; });  // pressed twice is meant once
    }
  });

  window.addEventListener('pageshow', () => {
    for (const button of document.querySelectorAll('button[disabled]')) button.disabled = false;
  });

  document.addEventListener('keydown', (event) => {
    if (event.key !== '/' || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest('input, textarea, select')) return;
    event.preventDefault();
    document.getElementById('find').focus();
  });

  // What was just done is not said again when the page is shared or loaded anew.
  const here = new URL(location.href);
  if (here.searchParams.has('told')) {
    here.searchParams.delete('told');
    history.replaceState(null, '', here);
  }

  // -- the page anew: its parts are brought up to date in place, so that focus, scrolling and folds stay --------------

  function same(one, other) {
    return one.nodeType === other.nodeType && one.nodeName === other.nodeName && (one.id || '') === (other.id || '');
  }

  function bring(old, fresh) {
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE || old.contains(document.activeElement) && old.matches('input, select')) return;
    for (const name of old.getAttributeNames()) {
      if (!fresh.hasAttribute(name) && name !== 'open' && name !== 'hidden') old.removeAttribute(name);
    }
    for (const name of fresh.getAttributeNames()) {
      if (name === 'open' || name === 'hidden' || name === 'value') continue;
      if (old.getAttribute(name) !== fresh.getAttribute(name)) old.setAttribute(name, fresh.getAttribute(name));
    }
    if (old.nodeName === 'TIME') return;  // ticks by itself
    let place = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      if (child.id && !(place && same(place, child))) {
        const known = [...old.children].find((one) => one.id === child.id);
        if (known) { old.insertBefore(known, place); place = known; }
      }
      if (place && same(place, child)) {
        bring(place, child);
        place = place.nextSibling;
      } else {
        const made = document.importNode(child, true);
        old.insertBefore(made, place);
        if (made.nodeName === 'TR' && old.children.length > 1) made.classList.add('new');
      }
    }
    while (place) { const after = place.nextSibling; place.remove(); place = after; }
  }

  let fetching = false;
  let again = false;

  async function refresh() {
    if (fetching) { again = true; return; }
    fetching = true;
    try {
      const answer = await fetch(location.href, { headers: { Accept: 'text/html' } });
      if (!answer.ok && answer.status !== 503) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');  // inert: nothing in it runs
      const main = fresh.getElementById('main');
      if (!main) return;
      for (const part of main.querySelectorAll('.receipt')) part.remove();
      const told = document.querySelector('#main > .receipt');
      if (told) told.remove();
      bring(document.getElementById('main'), main);
      if (told) document.getElementById('main').prepend(told);
      ready(document);
      unreachable = false;
    } catch {
      unreachable = true;
    } finally {
      fetching = false;
      state();
      if (again) { again = false; soon(); }
    }
  }

  let waiting = 0;

  function soon(delay = 400) {
    if (waiting) return;
    waiting = setTimeout(() => { waiting = 0; if (!document.hidden) refresh(); }, delay);
  }

  // -- rows that the stream tells of ---------------------------------------------------------------------------------

  function text(value, most = 80) {
    const said = String(value ?? '');
    const shown = said.slice(0, most).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, '0')}`);
    return said.length > most ? `${shown}…` : shown;
  }

  function what(item) {
    if (item.status === 'rejected') return 'refused request';
    return [item.action, item.model].filter(Boolean).map((one) => text(one, 60)).join(' ') || text(item.event || 'event');
  }

  function result(item) {
    const said = [];
    if (item.error && item.status === 'rejected') said.push(item.code ? `${item.code}: ${item.error.message}` : item.error.message);
    else if (item.error) {
      const known = item.error.message || item.error.code;
      if (item.code && !known.includes(String(item.code))) said.push(item.code);
      said.push(known);
    } else if (item.code) said.push(item.code);
    else if (item.merged_into) said.push('merged into another one');
    else if (item.status === 'unmatched') said.push('no route wanted it');
    if (item.duration_ms != null) said.push(`${item.duration_ms.toLocaleString('en')} ms`);
    if (item.attempts > 1) said.push(`${item.attempts} attempts`);
    return text(said.join(' · '), 140);
  }

  function timed(moment, kind) {
    const time = document.createElement('time');
    time.dateTime = moment;
    time.title = moment.replace('T', ' ').replace(/\.\d+Z$/, ' UTC');
    time.dataset[kind] = '';
    tick({ querySelectorAll: () => [time] });
    return time;
  }

  function link(href, label, mono) {
    const made = document.createElement('a');
    made.href = href;
    made.textContent = label;
    if (mono) made.className = 'mono';
    return made;
  }

  // What is due waits all the same while its route does not answer: which ones do not is asked now and then.
  const probes = new Map();
  let learned = 0;

  function label(next) {
    const probe = probes.get(next.dataset.route);
    if (!probe) next.replaceChildren('due ', timed(next.dataset.due, 'due'));
    else if (new Date(next.dataset.due) > Date.now()) next.replaceChildren('due ', timed(next.dataset.due, 'due'), ', once its route answers');
    else next.replaceChildren('waits for its route to answer: the next probe goes out ', timed(probe, 'due'));
  }

  async function learn() {
    if (!body.dataset.rows || document.hidden || Date.now() - learned < 4000 || !document.querySelector('.next[data-due]')) return;
    learned = Date.now();
    try {
      const answer = await fetch('/routes', { headers: { Accept: 'application/json' } });
      if (!answer.ok) return;
      probes.clear();
      for (const route of (await answer.json()).routes) if (route.next_probe_at) probes.set(route.name, route.next_probe_at);
      document.querySelectorAll('.next[data-due]').forEach(label);
    } catch { /* the stream says that the connection is lost */ }
  }

  // Why something is held the stream does not say: the page itself does, with as many rows as there are here.
  let asked = 0;
  let asking = 0;

  function reasons() {
    if (!asking) asking = setTimeout(reason, Math.max(200, asked + 3000 - Date.now()));
  }

  async function reason() {
    asking = 0;
    const open = [...document.querySelectorAll('.next[data-held]')];
    if (!open.length || document.hidden) return;
    asked = Date.now();
    for (const next of open) delete next.dataset.held;
    try {
      const page = new URL(location.href);
      page.searchParams.set('limit', body.dataset.most);
      const answer = await fetch(page, { headers: { Accept: 'text/html' } });
      if (!answer.ok) return;
      const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');  // inert: nothing in it runs
      for (const next of open) {
        const row = next.closest('tr');
        const said = row && row.matches('.is-held') && fresh.querySelector(`#${CSS.escape(row.id)}.is-held .next`);
        if (said) next.replaceChildren(...[...said.childNodes].map((one) => document.importNode(one, true)));
      }
    } catch { /* the stream says that the connection is lost */ }
  }

  function fill(row, item) {
    const find = (selector) => row.querySelector(selector);
    const page = `/ui/logs/${encodeURIComponent(item.id)}`;
    row.id = `row-${item.id}`;
    row.className = `is-${item.status}`;
    const status = find('.status');
    status.className = `status status-${item.status}`;
    status.querySelector('use').setAttribute('href', `#i-${item.status}`);
    status.lastElementChild.textContent = item.status;
    find('.what').href = page;
    find('.what').textContent = what(item);
    find('.entry').replaceChildren(...(!item.entry_id ? [] : item.entry_id.length > 500 ? [text(item.entry_id, 36)] : [link(`/ui/entries?entry_id=${encodeURIComponent(item.entry_id)}`, text(item.entry_id, 36), true)]));
    find('.from').textContent = text(item.source, 40);
    find('.to').replaceChildren(...(item.route ? [link(`/ui/routes/${encodeURIComponent(item.route)}`, text(item.route, 40))] : []));
    find('.result').textContent = result(item);
    const next = find('.next');
    next.replaceChildren();
    if (item.status === 'pending' && item.next_attempt_at) {
      next.dataset.due = item.next_attempt_at;
      next.dataset.route = item.route;
      label(next);
      setTimeout(learn);
    } else delete next.dataset.due;
    if (item.status === 'held') {
      next.dataset.held = '';
      reasons();
    } else delete next.dataset.held;
    find('.c-when').replaceChildren(timed(item.created_at, 'ago'));
    const id = find('.id a');
    id.href = page;
    id.title = item.id;
    id.textContent = `${item.id.slice(0, 18)}…`;
    find('.copy').dataset.copy = item.id;
  }

  let arrived = 0;
  let saying = 0;

  function say() {
    if (saying) return;
    saying = setTimeout(() => {
      announce.textContent = arrived === 1 ? 'One new row' : `${arrived} new rows`;
      arrived = saying = 0;
    }, 1500);
  }

  function show(item) {
    const rows = document.getElementById(body.dataset.rows);
    let row = document.getElementById(`row-${item.id}`);
    if (row) { fill(row, item); return; }
    const first = rows.querySelector('tr .c-when time');
    const newest = first ? first.dateTime : '';
    row = document.getElementById('row').content.querySelector('tr').cloneNode(true);
    fill(row, item);
    row.classList.add('new');
    if (item.created_at >= newest) rows.prepend(row);
    else {
      const after = [...rows.children].find((one) => one.querySelector('.c-when time').dateTime <= item.created_at);
      if (!after) return;  // older than all that is shown
      rows.insertBefore(row, after);
    }
    // Whoever reads further down keeps their place.
    const bottom = row.getBoundingClientRect().bottom;
    if (bottom < 0) window.scrollBy(0, row.offsetHeight);
    while (rows.children.length > Number(body.dataset.most)) rows.lastElementChild.remove();
    const nothing = document.getElementById('nothing');
    if (nothing) nothing.remove();
    ready(row);
    arrived += 1;
    say();
  }

  // -- the stream ----------------------------------------------------------------------------------------------------

  let stream = null;
  let lost = false;
  let unreachable = false;
  let retrying = 0;
  let wait = 1000;

  function state() {
    if (!live || !body.dataset.stream) return;
    live.hidden = false;
    const away = lost || unreachable;
    live.classList.toggle('lost', away);
    const words = unreachable ? 'Connection lost, trying again' : lost ? 'Not live, trying again' : 'Live';
    if (live.textContent !== words) live.textContent = words;
  }

  function connect() {
    clearTimeout(retrying);
    if (stream) stream.close();
    stream = new EventSource(body.dataset.stream);
    stream.onopen = () => {
      if (lost) soon(0);  // what happened meanwhile
      lost = false;
      wait = 1000;
      state();
    };
    stream.onmessage = (event) => {
      if (body.dataset.rows) show(JSON.parse(event.data));
      else soon();
    };
    stream.addEventListener('lost', () => soon(0));
    stream.onerror = () => {
      lost = true;
      state();
      if (stream.readyState !== EventSource.CLOSED) return;  // the browser tries again by itself
      retrying = setTimeout(connect, wait);
      wait = Math.min(wait * 2, 30000);
    };
  }

  ready(document);
  setInterval(() => { if (!document.hidden) tick(document); learn(); }, 5000);
  if (body.dataset.stream) {
    connect();
    const every = Number(body.dataset.refresh || 0) * 1000;
    setInterval(() => { if (!document.hidden && (every || lost)) refresh(); }, every || 10000);
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) { stream.close(); clearTimeout(retrying); } else { connect(); refresh(); }
    });
    window.addEventListener('pagehide', () => { stream.close(); clearTimeout(retrying); });
    window.addEventListener('pageshow', (event) => { if (event.persisted) { connect(); refresh(); } });
  }
})();
