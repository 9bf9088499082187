// Opens pages that keepalive_report() has made, in headless Chromium: light and dark, narrow
// and wide, and printed.  Prints TAP lines, and leaves screenshots and PDF files next to the
// pages.
//
//   node test/report/browse.js MODULES FILE.html...    MODULES has axe-core and playwright-core
'use strict';
const fs = require('fs');
const path = require('path');

const [modules, ...files] = process.argv.slice(2);
const { chromium } = require(path.resolve(modules, 'playwright-core'));
const axe = fs.readFileSync(path.resolve(modules, 'axe-core/axe.min.js'), 'utf8');

function test(holds, name, ...details) {
	console.log(`${holds ? 'ok' : 'not ok'} - ${name}`);
	if (!holds)
		for (const detail of details)
			console.log(`# ${String(detail).replace(/\n/g, '\n# ')}`);
}

// What a page does that it must not: messages, errors, and requests for anything else.
function watch(page, url) {
	const seen = [];
	page.on('console', message => seen.push(`${message.type()}: ${message.text()}`));
	page.on('pageerror', error => seen.push(`error: ${error}`));
	page.on('dialog', dialog => { seen.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
	page.on('request', request => { if (request.url() !== url) seen.push(`request: ${request.url()}`); });
	return seen;
}

async function screen(browser, file, colorScheme, width) {
	const url = `file://${path.resolve(file)}`;
	const name = `${path.basename(file, '.html')}, ${colorScheme}, ${width} px`;
	const context = await browser.newContext({ colorScheme, viewport: { width, height: 900 } });
	const page = await context.newPage();
	const seen = watch(page, url);
	await page.goto(url);
	test(seen.length === 0, `${name}: no message, error, or request`, ...seen);

	const layout = await page.evaluate(() => ({
		width: document.documentElement.scrollWidth,
		styled: getComputedStyle(document.querySelector('.tiles')).display === 'grid',
		outside: [...document.querySelectorAll('body *')]
			.filter(e => !e.closest('svg') && e.getBoundingClientRect().right > innerWidth + 1)
			.map(e => e.outerHTML.slice(0, 120)),
		small: [...document.querySelectorAll('text')]
			.filter(e => parseFloat(getComputedStyle(e).fontSize) < 11).length,
		scripts: document.querySelectorAll('script, [onload], [onerror], [onclick], img, iframe, link, object').length,
	}));
	test(layout.styled, `${name}: the security policy allows the style sheet`);
	test(layout.width <= width && layout.outside.length === 0, `${name}: nothing is wider than the page`, layout.width, ...layout.outside);
	test(layout.small === 0, `${name}: no text in a picture is too small`);
	test(layout.scripts === 0, `${name}: there is no script, handler, or other document in it`);

	// The names on the axis of the policies must not run into each other.
	const overlaps = await page.evaluate(() => {
		const boxes = [...document.querySelectorAll('.axis text')].map(e => e.getBoundingClientRect());
		return boxes.slice(1).filter((box, i) => box.left < boxes[i].right + 2).length;
	});
	test(overlaps === 0, `${name}: the labels of the axis do not overlap`);

	// Not by a script element: the page's security policy would refuse it.
	await page.evaluate(axe);
	const found = await page.evaluate(() => axe.run(document));
	test(found.passes.length > 15 && found.violations.length === 0, `${name}: axe finds no violation in ${found.passes.length} rules`,
		...found.violations.map(v => `${v.id}: ${v.help}\n${v.nodes.map(n => n.html).slice(0, 5).join('\n')}`));
	// It does not look at text in pictures, which has the color of .soft.
	const unsure = found.incomplete.filter(rule => rule.id === 'color-contrast').flatMap(rule => rule.nodes)
		.filter(node => !node.html.startsWith('<text '));
	test(unsure.length === 0, `${name}: axe can compute the contrast of all text`, ...unsure.map(n => n.html).slice(0, 5));
	test(seen.length === 0, `${name}: still none`, ...seen);

	await page.screenshot({ path: file.replace(/\.html$/, `-${colorScheme}-${width}.png`), fullPage: true });

	// What an attacker would want.
	const refused = await page.evaluate(() => new Promise(resolve => {
		document.addEventListener('securitypolicyviolation', event => resolve(event.violatedDirective));
		setTimeout(() => resolve('nothing'), 2000);
		const script = document.createElement('script');
		script.textContent = 'window.attacked = true';
		document.body.append(script);
	}));
	test(/^script-src/.test(refused) && !await page.evaluate(() => window.attacked), `${name}: the security policy refuses scripts`, refused);
	await context.close();
}

async function print(browser, file) {
	const name = path.basename(file, '.html');
	// Dark on the screen: paper is white all the same.
	const context = await browser.newContext({ colorScheme: 'dark', viewport: { width: 718, height: 1000 } });
	const page = await context.newPage();
	const url = `file://${path.resolve(file)}`;
	const seen = watch(page, url);
	await page.goto(url);
	const pdf = await page.pdf({ format: 'A4', margin: { top: '14mm', bottom: '14mm', left: '14mm', right: '14mm' }, printBackground: true });
	fs.writeFileSync(file.replace(/\.html$/, '.pdf'), pdf);
	const pages = (pdf.toString('latin1').match(/\/Type\s*\/Page\b/g) || []).length;
	test(pages >= 1 && pages <= 12, `${name}: printed on ${pages} pages`);
	await page.emulateMedia({ media: 'print' });
	const colors = await page.evaluate(() => [getComputedStyle(document.documentElement).backgroundColor,
		getComputedStyle(document.querySelector('nav')).display, document.documentElement.scrollWidth]);
	test(colors[0] === 'rgb(255, 255, 255)' && colors[1] === 'none' && colors[2] <= 718, `${name}: printed on white paper, without links, not too wide`, colors);
	await page.screenshot({ path: file.replace(/\.html$/, '-print.png'), fullPage: true });
	test(seen.length === 0, `${name}: no message, error, or request when it is printed`, ...seen);
	await context.close();
}

(async () => {
	const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu'] });
	for (const file of files) {
		for (const colorScheme of ['light', 'dark'])
			for (const width of [320, 840, 1280])
				await screen(browser, file, colorScheme, width);
		await print(browser, file);
	}
	await browser.close();
})().catch(error => {
	console.log(`not ok - the browser runs\n# ${error.stack.replace(/\n/g, '\n# ')}`);
	process.exit(1);
});
