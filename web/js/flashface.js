// A colour for each socket of the pack, what a preset of FlashFace Guidance puts in place of its
// widgets, what to do about an empty list of files, and where FlashFace Identity Save has put a
// person. Nothing here changes what is sent, or the values that are saved.

import { app } from "../../../scripts/app.js";

const COLOURS = {
    REFERENCE_NET: "#b39ddb",
    FACE_DETECTOR: "#80cbc4",
    FACE_IDENTITY: "#cddc39",
    FACE_CROP: "#bcaaa4",
    FACE_FEATURES: "#f48fb1",
    FACE_GUIDANCE: "#ce93d8",
    FACE2DIFFUSION: "#9fa8da",
    FACESTUDIO: "#a5d6a7",
    FACE_FUSION: "#81d4fa",
    FACE_FUSION_FEATURES: "#4fc3f7",
};

// Palettes of the user win; the frontend empties these with every change of the palette.
function colour() {
    const style = document.documentElement.style;
    for (const [type, value] of Object.entries(COLOURS)) {
        for (const place of [
            app.canvas?.default_connection_color_byType,
            window.LGraphCanvas?.link_type_colors,
        ])
            if (place && !place[type]) place[type] = value;
        const name = `--color-datatype-${type}`;
        if (!style.getPropertyValue(name)) style.setProperty(name, value);
    }
    app.canvas?.setDirty(true, true);
}

// What a widget is called in the user's language, before anything here renamed it.
const NAMES = new WeakMap();

// A name of the user's own lies in the widget's input. The page's field for names puts there what
// it showed, even when nothing was typed: then `ours` is in it.
function rename(node, widget, ours, makeLabel) {
    if (!NAMES.has(widget)) NAMES.set(widget, widget.label);
    const input = node.inputs?.find((input) => input.widget?.name === widget.name);
    const name = input?.label?.replace(ours, "") || NAMES.get(widget);
    widget.label = makeLabel?.(name ?? widget.name) ?? name;
}

// With a workflow come its values and names.
function whenConfigured(node, show) {
    const before = node.onConfigure;
    node.onConfigure = function (...args) {
        before?.apply(this, args);
        show();
    };
    show();
}

// Widgets that a preset overrides are greyed out and carry its number beside their name.
function showPreset(node, presets) {
    const preset = node.widgets?.find((widget) => widget.name === "preset");
    if (!preset) return;
    const show = () => {
        const numbers = presets[preset.value] ?? {};
        for (const widget of node.widgets) {
            const names = Object.values(presets).some((values) => widget.name in values);
            if (!names) continue;
            const number = numbers[widget.name];
            widget.disabled = number !== undefined;
            const label = number === undefined ? null : (name) => `${number} (preset) ${name}`;
            rename(node, widget, /^\S+ \(preset\) /, label);
        }
        node.setDirtyCanvas?.(true, true);
    };
    // The page calls this for a new value, and after "Rename Widget".
    for (const widget of node.widgets) {
        const before = widget.callback;
        widget.callback = function (...args) {
            const result = before?.apply(this, args);
            show();
            return result;
        };
    }
    whenConfigured(node, show);
}

// A list without files says what belongs there; `when_empty` comes from the node's schema.
function showEmpty(node) {
    for (const widget of node.widgets ?? []) {
        const inputs = node.constructor.nodeData?.input?.required ?? {};
        const advice = inputs[widget.name]?.[1]?.when_empty;
        if (!advice) continue;
        const values = widget.options?.values;
        const isEmpty = Array.isArray(values) && values.length === 1 && values[0] === "none";
        rename(node, widget, advice, isEmpty ? () => advice : null);
    }
    node.setDirtyCanvas?.(true, true);
}

function everyNode(graph, visit) {
    for (const node of graph?.nodes ?? []) {
        visit(node);
        everyNode(node.subgraph, visit);
    }
}

// Text that a node returns, below its widgets; the page itself shows only pictures there. Before
// the first run there is none, so a node has just the widgets of its schema.
function showText(node) {
    const before = node.onExecuted;
    node.onExecuted = function (message, ...args) {
        before?.call(this, message, ...args);
        if (!message?.text) return;
        let widget = node.widgets.find((widget) => widget.name === "saved");
        if (!widget) {
            const spec = ["STRING", { multiline: true }];
            widget = app.widgets.STRING(node, "saved", spec, app).widget;
            widget.serialize = widget.options.serialize = false; // in the workflow, to the server
            widget.options.read_only = true;
            widget.element.readOnly = true;
            widget.options.getMinHeight = () => {
                const around = window.LiteGraph?.vueNodesMode ? 80 : 15; // pixels
                return around + 15 * Math.ceil((8 * widget.value.length) / node.size[0]);
            };
        }
        widget.value = message.text.join("\n");
        const [width, height] = node.computeSize();
        node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
    };
}

app.registerExtension({
    name: "flashface.canvas",
    setup() {
        colour();
        app.ui?.settings?.addEventListener?.("Comfy.ColorPalette.change", () =>
            setTimeout(colour, 0),
        );
    },
    afterConfigureGraph: colour,
    refreshComboInNodes() {
        // The lists are filled after this is called.
        setTimeout(() => everyNode(app.graph, showEmpty), 0);
    },
    nodeCreated(node) {
        const inputs = node.constructor.nodeData?.input?.required ?? {};
        if (Object.values(inputs).some((input) => input?.[1]?.when_empty))
            whenConfigured(node, () => showEmpty(node));
        if (node.comfyClass === "FlashFaceIdentitySave") showText(node);
        const presets = inputs.preset?.[1]?.presets;
        if (presets) showPreset(node, presets);
    },
});
