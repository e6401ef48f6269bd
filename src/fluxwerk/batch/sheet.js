const form = document.querySelector("form");
const figures = [...document.querySelectorAll("figure")];

function filter() {
  const text = form.elements.text.value.toLowerCase();
  const stage = form.elements.stage.value;
  let shown = 0;
  for (const figure of figures) {
    figure.hidden = !figure.dataset.text.includes(text) || (stage !== "" && figure.dataset.stage !== stage);
    shown += figure.hidden ? 0 : 1;
  }
  form.querySelector("output").value = `${shown} of ${figures.length}`;
}

form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
filter();
