// Every word that the page shows, in the language chosen.

const PLAY = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const words = { language: "en" };

// The sentence of a key, with {name} replaced by the value of that name.
function say(key, values = {}) {
  const text = PLAY.words[words.language][key] ?? PLAY.words.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

// Whether there is such a sentence.
const isSaid = (key) => key in PLAY.words.en || key in PLAY.words[words.language];

// Puts the words of the language into all that asks for them: data-say for text, data-say-label for what is read aloud,
// data-say-title for what is shown when pointed at.
function sayAll(root = document) {
  for (const each of root.querySelectorAll("[data-say]")) each.textContent = say(each.dataset.say);
  for (const each of root.querySelectorAll("[data-say-label]")) each.setAttribute("aria-label", say(each.dataset.sayLabel));
  for (const each of root.querySelectorAll("[data-say-title]")) each.title = say(each.dataset.sayTitle);
}

// An element with attributes, and what is in it.
function make(tag, attributes = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== "list" && name !== "type") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...inside);
  return made;
}
