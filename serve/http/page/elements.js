// Elements made of text: nothing that comes from the server is ever read as HTML.

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children); // strings become text nodes
  return made;
}

// Many titles are written for web pages: their commonest marks as letters.
const MARKS = { amp: "&", lt: "<", gt: ">", quot: '"', "#39": "'", "#34": '"', nbsp: "\u00a0" };
export const plain = (title) => title.replace(/&(amp|lt|gt|quot|#39|#34|nbsp);/g, (_, name) => MARKS[name]);

export const titled = ({ item, title }) => [
  element("span", { class: "title" }, title ? plain(title) : "untitled"),
  element("span", { class: "id" }, item),
];
