const jsonServer = require("json-server");

const server = jsonServer.create();
server.use(jsonServer.defaults({ logger: false }));
server.use(jsonServer.router("/data/db.json"));
const at = server.listen(process.env.APP_PORT, "127.0.0.1", () => console.log("JSON Server listens on", at.address().port));
