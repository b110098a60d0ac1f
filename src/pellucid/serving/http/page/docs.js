// The reference of the API, from its OpenAPI description.

function make(tag, text, ...children) {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

function table(heads, rows) {
  const head = make("tr", "", ...heads.map((text) => Object.assign(make("th", text), { scope: "col" })));
  return make("table", "", make("thead", "", head), make("tbody", "", ...rows.map((row) => make("tr", "", ...row.map((text) => make("td", text))))));
}

function describeSchema(schema = {}) {
  const one = schema.anyOf?.find((part) => part.type !== "null") ?? schema;
  const limits = [
    one.enum && one.enum.join(", "),
    one.minimum !== undefined && `from ${one.minimum}`,
    one.exclusiveMinimum !== undefined && `above ${one.exclusiveMinimum}`,
    one.maximum !== undefined && `to ${one.maximum}`,
    schema.default !== undefined && schema.default !== null && `default ${schema.default}`,
  ].filter(Boolean);
  return [one.type, ...limits].filter(Boolean).join("; ");
}

const api = await (await fetch("/openapi.json")).json();
for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, route] of Object.entries(methods)) {
    const parts = [make("h2", "", make("code", `${method.toUpperCase()} ${path}`)), make("p", route.description)];
    if (route.parameters?.length) {
      const rows = route.parameters.map((one) => [`${one.name}${one.required ? " (needed)" : ""}`, describeSchema(one.schema), one.description ?? one.schema?.description ?? ""]);
      parts.push(table(["parameter", "values", ""], rows));
    }
    if (route.requestBody) {
      parts.push(make("p", `Body: ${Object.keys(route.requestBody.content).join(" or ")}`));
      const { properties, required } = route.requestBody.content["application/json"]?.schema ?? {};
      const rows = Object.entries(properties ?? {}).map(([name, one]) => [`${name}${required.includes(name) ? " (needed)" : ""}`, describeSchema(one), one.description ?? ""]);
      if (rows.length) parts.push(table(["name", "values", ""], rows));
    }
    parts.push(table(["status", "meaning"], Object.entries(route.responses).map(([status, answer]) => [status, answer.description])));
    document.getElementById("routes").append(...parts);
  }
}
