// Drives Chromium over the live page and prints what it saw as JSON.
// node page.mjs MODULES URL TOKEN SCREENSHOT
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [modules, url, token, screenshot] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const browser = await puppeteer.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-color-profile=srgb"],
});
const seen = { console: [], violations: [], requests: [] };
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(30_000);
  await page.setViewport({ width: 1280, height: 1400 });
  page.on("console", (line) => { if (["error", "warn"].includes(line.type()) && !line.text().includes("willReadFrequently")) seen.console.push(line.text()); });
  page.on("pageerror", (error) => seen.console.push(String(error)));
  page.on("request", (request) => seen.requests.push(request.url()));
  await page.evaluateOnNewDocument(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.blockedURI + " " + event.violatedDirective));
  });
  const pixels = (selector) => page.$eval(selector, (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.filter((value, at) => at % 4 === 3 && value > 0).length;
  });
  const all = async () => ({
    rate: await pixels("#rate canvas"), bytes: await pixels("#bytes canvas"), ack: await pixels("#ack canvas"), heat: await pixels("#heat canvas"),
  });
  // Empty: its data are withheld.
  await page.setRequestInterception(true);
  let withheld = true;
  page.on("request", (request) => (withheld && request.url().endsWith("/v1/live") ? request.abort() : request.continue()));
  await page.goto(url);
  await page.waitForSelector("#rate canvas");
  seen.empty = await all();
  seen.console.length = 0;
  withheld = false;
  if (token) {
    await page.waitForSelector("#login:not([hidden])");
    await page.type("#token", "wrong");
    await page.click("#login button");
    await page.waitForFunction(() => document.getElementById("login-error").textContent !== "");
    seen.refused = await page.$eval("#login-error", (error) => error.textContent);
    await page.$eval("#token", (input) => { input.value = ""; });
    await page.type("#token", token);
    await page.click("#login button");
    // What the browser says of the 401 itself.
    seen.console = seen.console.filter((line) => !line.includes("401"));
  }
  // Six samples with mail in them.
  await page.waitForFunction(() => points.filter((point) => point.messages > 0).length >= 6);
  await page.waitForFunction(() => document.querySelectorAll("#exporters tbody tr, #shards tbody tr").length >= 1);
  seen.drawn = await all();
  seen.tiles = await page.$$eval("#tiles div", (tiles) => Object.fromEntries(
    tiles.map((tile) => [tile.querySelector("dt").textContent, tile.querySelector("dd").textContent])));
  seen.state = await page.$eval("#state", (state) => state.textContent);
  seen.tables = await page.$$eval("main table[aria-label]", (tables) => tables.map((table) => table.getAttribute("aria-label")));
  // The keyboard reads the values of a chart.
  await page.focus("#rate");
  await page.keyboard.press("End");
  await page.keyboard.press("ArrowLeft");
  seen.readout = await page.$eval("#readout", (readout) => readout.textContent);
  await page.screenshot({ path: `${screenshot}-light.png` });
  const judge = async () => {
    // In the page's own world, where its policy does not bind the test's script.
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => axe.run());
    return violations.filter(({ impact }) => ["serious", "critical"].includes(impact))
      .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ")}`);
  };
  seen.axe = await judge();
  await page.click("#theme");
  await page.waitForFunction(() => document.documentElement.classList.contains("dark"));
  await page.screenshot({ path: `${screenshot}-dark.png` });
  seen.axe.push(...await judge());
  // A narrow window has no scroll bar of its own.
  await page.setViewport({ width: 400, height: 800 });
  await page.waitForFunction(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth);
  seen.violations = await page.evaluate(() => window.violations);
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
