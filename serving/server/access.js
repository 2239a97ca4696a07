/* The token of a server or review: it lives only in this tab. */

/* An address may bring it in its fragment, which is never sent. */
if (location.hash.startsWith("#token=")) {
  sessionStorage.setItem("token", location.hash.slice("#token=".length));
  history.replaceState(null, "", location.pathname);
}

function withToken() {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: "Bearer " + token } : {};
}

/* Shows a form in place of #login after an answer that asks for a token; `again` is called with a new one. */
function askForToken(response, again) {
  const form = document.getElementById("login");
  form.hidden = response.status !== 401;
  if (form.hidden || form.children.length) return;
  const token = element("input");
  Object.assign(token, { id: "token", type: "password", autocomplete: "off", required: true });
  const label = element("label", "Token ");
  label.append(token);
  form.append(label, " ", element("button", "Use"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem("token", token.value.trim());
    token.value = "";
    again();
  });
}
